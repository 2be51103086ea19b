"""Which implementation of a norm computes: decided by the input's kind and size, nothing else.

The names:
    triton: the Triton kernels; CUDA and ROCm.
    compiled: the C++ kernels, built on first use; CPU.
    eager: the plain formula; anywhere.
    auto: the kernel for the device where there is one and it pays, the plain formula otherwise.

A run that was killed and resumed must give the same bits as one that was not. So `auto` looks at
device, dtype and shape and at what this machine can do, never at how long a run has lasted or at
whether a library happens to be built already.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache

import torch
from torch import Tensor

from vision.norms.kernels import seednorm_cpu
from vision.norms.kernels.cpu_build import UnavailableError, find_compiler
from vision.norms.kernels.triton_config import MAX_DIM

BACKENDS = ("auto", "triton", "compiled", "eager")
VARIABLE = "VISION_NORM_BACKEND"

# A call on fewer elements takes the plain formula. The kernel would save under 2 ms there, so a
# program that makes no larger calls (tests, a first look at a small model) would seldom earn back
# the seconds that building the library takes.
MIN_ELEMENTS = 1 << 18

_KERNELS = {"cuda": "triton", "cpu": "compiled"}
_log = logging.getLogger("vision")


def requested_backend(option: str) -> str:
    """The backend asked for: $VISION_NORM_BACKEND where it is set, the layer's option otherwise.

    Raises:
        ValueError: there is no such backend, or what it needs is not installed.
    """
    name = os.environ.get(VARIABLE) or option
    if name not in BACKENDS:
        origin = f"${VARIABLE}" if os.environ.get(VARIABLE) else "backend"
        raise ValueError(f"{origin} = {name!r}: valid are {', '.join(BACKENDS)}")
    try:
        if name == "triton":
            _check_triton()
        if name == "compiled":
            find_compiler()
    except UnavailableError as error:
        raise ValueError(f"norm backend {name!r} is not available: {error}") from None
    return name


def choose_backend(requested: str, x: Tensor, dim: int) -> str:
    """The backend that computes for `x`, `[..., dim]`: "triton", "compiled" or "eager".

    Raises:
        ValueError: `requested` is a kernel that cannot work on this input, with the reason.
    """
    automatic = requested == "auto"
    # an exported program should run for any number of rows, and without this package
    if requested == "eager" or (automatic and torch.compiler.is_exporting()):
        return "eager"
    # only where it matters: for torch.compile the comparison restricts the shapes of a graph
    large = bool(x.numel() >= MIN_ELEMENTS) if automatic and x.device.type == "cpu" else True
    return _choose(requested, x.device.type, x.dtype, dim, large)


@torch.compiler.assume_constant_result
def _choose(requested: str, device: str, dtype: torch.dtype, dim: int, large: bool) -> str:
    return _decide(requested, device, dtype, dim, large)


@cache
def _decide(requested: str, device: str, dtype: torch.dtype, dim: int, large: bool) -> str:
    automatic = requested == "auto"
    kernel = _KERNELS.get(device) if automatic else requested
    try:
        if kernel is None:
            raise UnavailableError("there is no kernel for this device")
        if not large:
            raise UnavailableError(f"fewer than {MIN_ELEMENTS} elements")
        _check(kernel, device, dtype, dim)
    except UnavailableError as error:
        if not automatic:
            raise ValueError(
                f"norm backend {requested!r} cannot work on {device} input of {dtype}: {error}; "
                f"take backend 'auto' (or unset ${VARIABLE})"
            ) from None
        _announce(device, dtype, f"eager ({error})")
        return "eager"
    if automatic:
        _announce(device, dtype, kernel)
    return kernel


def _check(kernel: str, device: str, dtype: torch.dtype, dim: int) -> None:
    """Raises UnavailableError with the reason if the kernel cannot work on such input."""
    if dtype not in seednorm_cpu.DTYPES:
        raise UnavailableError("the kernels know float16, bfloat16, float32 and float64")
    if kernel == "compiled":
        if device != "cpu":
            raise UnavailableError("the C++ kernel is for the CPU")
        seednorm_cpu.function("forward", dtype)  # builds the library
        return
    _check_triton()
    interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if device != "cuda" and not interpreted:
        raise UnavailableError(
            "Triton is for CUDA and ROCm (on the CPU only interpreted, with TRITON_INTERPRET=1)"
        )
    if dim > MAX_DIM:
        raise UnavailableError(f"dim {dim} is above {MAX_DIM}")


def _check_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        raise UnavailableError("the package triton is not installed")


@cache  # once, however many layers, shapes and threads ask
def _announce(device: str, dtype: torch.dtype, backend: str) -> None:
    _log.info("SeeDNorm on %s %s: backend %s", device, str(dtype).removeprefix("torch."), backend)
