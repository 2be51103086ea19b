"""Launch configurations of the Triton kernels, by the size of a row. Imports no Triton."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch

MAX_DIM = 32768  # a longer row would not fit the registers of one program
_PROGRAMS_ELSEWHERE = 4  # under Triton's interpreter, where programs run one after another


@dataclass(frozen=True)
class LaunchConfig:
    """How a kernel is launched.

    Attributes:
        rows: Rows that a program works on at a time, a power of two.
        warps: Warps of a program.
        programs: Largest number of programs of a backward; each sums a part of the gradients.
        prefetch: Whether a backward reads the next rows while it works on these.
        in_registers: Whether a backward keeps its sums there.
    """

    rows: int
    warps: int
    programs: int = 0
    prefetch: bool = True
    in_registers: bool = True


def tile_size(dim: int, num_heads: int) -> int:
    """Elements of a row's tile: heads and their width, each rounded up to a power of two."""
    return _power_of_2(num_heads) * _power_of_2(dim // num_heads)


def forward_config(dim: int, num_heads: int, wave: int = 32) -> LaunchConfig:
    """Eight elements per thread (two 128-bit loads of float32, one of bf16), 16 in long rows.

    Args:
        dim: Size of a row.
        num_heads: Heads in it.
        wave: Threads of a warp: 32 on NVIDIA, 64 on AMD.
    """
    tile = tile_size(dim, num_heads)
    rows = max(1, 1024 // tile)
    threads = rows * tile // (8 if tile <= 2048 else 16)
    return LaunchConfig(rows, warps=min(1024, max(128, threads)) // wave)


def backward_config(dim: int, num_heads: int, device: torch.device, wave: int = 32) -> LaunchConfig:
    """Few enough elements per thread for three sums to stay in registers, while they can.

    Up to 4096 channels no register spills; longer rows are slower.
    """
    tile = tile_size(dim, num_heads)
    rows = max(1, 1024 // tile)
    threads = min(1024, max(128, rows * tile // 8))
    # as many programs as fit at once: 110 to 170 registers per thread allow 512 threads, or 384
    # where a program works on several rows
    resident = max(1, (512 if rows == 1 else 384) // threads)
    return LaunchConfig(
        rows,
        warps=threads // wave,
        programs=_processors(device) * resident,
        prefetch=tile <= 4096,
        in_registers=tile <= 8192,
    )


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return _PROGRAMS_ELSEWHERE
    return torch.cuda.get_device_properties(device).multi_processor_count


def _power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()
