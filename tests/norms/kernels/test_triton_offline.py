"""The Triton kernels compiled for GPUs that are not here: no spills, 128-bit accesses."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from vision.norms.kernels.triton_config import LaunchConfig, backward_config, forward_config

triton = pytest.importorskip("triton")
rows = pytest.importorskip("vision.norms.kernels.rows_triton")
if not isinstance(rows.forward_kernel, triton.JITFunction):
    pytest.skip("Triton interprets in this process", allow_module_level=True)

DIMS = [192, 384, 768, 1024, 1152, 4096]
TARGETS = ["sm_80", "sm_90", "gfx942"]
MAIN = {"X", "Y", "DX", "DY", "SCALE", "SHIFT"}  # arguments in the dtype of the activations
NORMS = {
    "layernorm": ("channels", "channels"),
    "rmsnorm": ("channels",),
    "dyt": ("scalar", "channels", "channels"),
    "derf": ("scalar", "scalar", "channels", "channels"),
    "isru": ("scalar", "scalar", "channels", "channels"),
    "dyisru": ("scalar", "channels", "channels"),
    "seednorm": ("channels", "channels", "channels"),
}  # their parameters


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    """Compiles anew, so that a stale cache cannot vouch for the kernel."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))


def compiled(kernel: Any, target: str, dtype: str, constants: dict[str, Any], warps: int) -> Any:
    """`kernel` for a target, all pointers and strides divisible by 16."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types, attributes = {}, {}
    for position, name in enumerate(kernel.arg_names):
        if name in constants:
            types[name] = "constexpr"
        elif name.isupper():
            types[name] = "*i1" if name == "MASK" else f"*{dtype if name in MAIN else 'fp32'}"
        else:
            types[name] = "i32"
        if types[name] != "constexpr" and name not in ("rows", "tokens", "parts"):
            attributes[(position,)] = [["tt.divisibility", 16]]
    values = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=types, constexprs=values, attrs=attributes)
    amd = target.startswith("gfx")
    gpu = GPUTarget("hip", target, 64) if amd else GPUTarget("cuda", int(target[3:]), 32)
    return triton.compile(source, target=gpu, options={"num_warps": warps})


def build(
    direction: str,
    target: str,
    dim: int,
    num_heads: int,
    dtype: str,
    name: str = "seednorm",
    masked: bool = False,
    modulated: bool = False,
) -> tuple[Any, LaunchConfig]:
    """The kernel as a launch would compile it, and its launch configuration."""
    norm = importlib.import_module(f"vision.norms.kernels.{name}_triton").NORM
    wave = 64 if target.startswith("gfx") else 32
    kinds = [*NORMS[name], 0.0, 0.0, 0.0][:4]
    constants = {f"KIND{k}": kind for k, kind in enumerate(kinds)}
    constants |= {"FORWARD": norm.forward_function, "KEPT": norm.kept, "MASKED": masked}
    constants |= {"MODULATED": modulated, "HEADS": num_heads, "WIDTH": dim // num_heads}
    constants |= {"WIDE": triton.language.float32, "H": triton.next_power_of_2(num_heads)}
    constants["W"] = triton.next_power_of_2(dim // num_heads)
    if direction == "forward":
        config = forward_config(dim, num_heads, wave)
        kernel = rows.forward_kernel
        constants |= {"STATISTICS": norm.statistics, "EPS": 1e-6}
    else:
        config = backward_config(dim, num_heads, torch.device("cpu"), wave)
        kernel = rows.backward_kernel
        constants |= {"BACKWARD": norm.backward_function, "COUNT": len(NORMS[name])}
        constants |= {"PREFETCH": config.prefetch, "IN_REGISTERS": config.in_registers}
    constants["R"] = config.rows
    return compiled(kernel, target, dtype, constants, config.warps), config


@pytest.mark.parametrize("name", sorted(set(NORMS) - {"seednorm"}))
def test_norms_on_the_skeleton_compile_without_spills(name, tmp_path):
    for target, dtype, dim in (
        ("sm_90", "bf16", 768),
        ("sm_90", "fp32", 1152),
        ("gfx942", "bf16", 768),
    ):
        built, _ = build("forward", target, dim, 1, dtype, name)
        assert spilled(built, tmp_path) == 0, f"forward {target} {dtype} {dim}"
        assert accesses(built)["store", 128] >= 1
        built, _ = build("backward", target, dim, 1, dtype, name)
        assert spilled(built, tmp_path) == 0, f"backward {target} {dtype} {dim}"
        assert accesses(built)["load", 128] >= 2


@pytest.mark.parametrize("name", sorted(NORMS))
def test_a_modulated_norm_compiles_without_spills(name, tmp_path):
    heads, masked = (16, True) if name == "seednorm" else (1, False)
    for target, dim in (("sm_80", 1152), ("sm_90", 768)):
        for direction in ("forward", "backward"):
            built, _ = build(direction, target, dim, heads, "bf16", name, masked, modulated=True)
            assert spilled(built, tmp_path) == 0, f"{direction} {target} {dim}"
            assert accesses(built)["load", 128] >= 2


def spilled(built: Any, folder: Path) -> int:
    """Bytes of local memory per thread."""
    if "amdgcn" in built.asm:
        return 4 * int(re.search(r"\.vgpr_spill_count:\s+(\d+)", built.asm["amdgcn"])[1])
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [tool, "--dump-resource-usage", cubin]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return sum(int(n) for n in re.findall(r"(?:LOCAL|STACK):(\d+)", text))


def accesses(built: Any) -> Counter[tuple[str, int]]:
    """(load or store, bits) of each access to global memory."""
    found: Counter[tuple[str, int]] = Counter()
    if "amdgcn" in built.asm:
        pattern = r"(?:global|buffer)_(load|store)_dword(?:x(\d))?\b"
        for kind, words in re.findall(pattern, built.asm["amdgcn"]):
            found[kind, 32 * int(words or 1)] += 1
        return found
    for kind, lanes, bits in re.findall(
        r"\b(ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.b(\d+)\b", built.asm["ptx"]
    ):
        found[{"ld": "load", "st": "store"}[kind], int(lanes or 1) * int(bits)] += 1
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_no_spills_and_128_bit_accesses(direction, dtype, target, tmp_path):
    for dim in DIMS:
        for num_heads in (1, 8):  # heads of a whole number of 128-bit words
            built, config = build(direction, target, dim, num_heads, dtype)
            name = f"{direction} {dtype} {target}: dim {dim}, {num_heads} heads"
            assert spilled(built, tmp_path) == 0, name
            count = accesses(built)
            if config.rows == 1:  # else parameters have fewer elements than threads, and only
                assert not {bits for _, bits in count if bits not in (32, 128)}, name
            # the streams, x and dy coming, y or dx going, are sure to move 128 bits at a time
            streams = {"load": 1, "store": 1} if direction == "forward" else {"load": 2, "store": 1}
            for kind, least in streams.items():
                assert count[kind, 128] >= least, f"{name}: {dict(count)}"


def test_the_memory_traffic_is_one_read_and_one_write():
    """In words of 128 bits per thread: 8 elements, once each, beside three parameters."""
    count = accesses(build("forward", "sm_90", 1024, 1, "fp32")[0])
    assert count["load", 128] == 2 + 3 * 2 and count["store", 128] == 2
