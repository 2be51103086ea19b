"""Where a program computes, and what a run ran on: versions, commit, device."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import distributed

_PACKAGES = (
    "torch torchvision timm pytorch-lightning torchmetrics diffusers omegaconf triton numpy pillow "
    "scikit-learn mlxtend safetensors"
).split()


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The device called `name`, else the accelerator, else the CPU.

    Under torchrun (LOCAL_RANK in the environment) each process gets its own accelerator. It becomes
    the current one: kernels and new tensors that name no device go there. On CUDA float32 products
    take TF32, as in training. Raises ValueError for a device that this machine does not have.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    try:
        device = torch.device(name or accelerator or "cpu")
    except RuntimeError:  # torch has no such type
        device = None
    count = {"cpu": 1}
    if accelerator is not None:
        count[accelerator.type] = torch.accelerator.device_count()
    if device is None or (device.index or 0) >= count.get(device.type, 0):
        known = ", ".join(f"{kind} ({number})" for kind, number in count.items())
        raise ValueError(f"device {str(name)!r}: this machine has {known}")
    local_rank = os.environ.get("LOCAL_RANK")
    if device.type != "cpu" and device.index is None and local_rank is not None:
        return choose_device(f"{device.type}:{local_rank}")
    if device.type != "cpu" and device.index is not None:
        torch.accelerator.set_device_index(device)
    allow_tf32()
    return device


def allow_tf32() -> None:
    """Let CUDA compute products and convolutions of float32 in TF32: one setting for all tools.

    Factors have 10 bits behind the point, sums are float32. Does nothing elsewhere.
    """
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def torchrun_rank() -> tuple[int, int]:
    """Rank and world size that torchrun gave this process, (0, 1) without torchrun."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """torch.distributed on `device` between the processes of torchrun; no-op for a single one."""
    _, world_size = torchrun_rank()
    if world_size == 1:
        yield
        return
    distributed.init_process_group(distributed.get_default_backend_for_device(device))
    try:
        yield
    finally:
        distributed.destroy_process_group()


def environment_record() -> dict[str, Any]:
    """Versions of the packages that results depend on, git commit, command line and device."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "device": device_name(),
        "threads": torch.get_num_threads(),
    }


def device_name() -> str:
    """The accelerator's name, or the processor's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of git in the folder of this package; None where it is no git checkout."""
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def first_found(found: str | None) -> str | None:
    """What the first rank found that found something, and the ranks that did; the same on all.

    All ranks must call, and none goes on before all have: so no rank leaves while another still
    waits for it in a collective.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return found
    all_found: list[str | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(all_found, found)
    ranks = [rank for rank, text in enumerate(all_found) if text is not None]
    if not ranks:
        return None
    which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {', '.join(map(str, ranks))}"
    return f"{all_found[ranks[0]]} on {which}"
