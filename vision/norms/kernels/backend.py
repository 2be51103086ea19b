"""Which implementation of a norm computes: decided by the norm and the input's kind alone.

The names:
    triton: the Triton kernels; CUDA and ROCm.
    compiled: the C++ kernels, built on first use; CPU.
    eager: the plain formula; anywhere.
    auto: the kernel for the device where there is one, the plain formula otherwise.

A run that was killed and resumed must give the same bits as one that was not. So `auto` looks at
device and dtype and at what this machine can do, never at how long a run has lasted or at
whether a library happens to be built already.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache

import torch
from torch import Tensor

from vision.norms.kernels import cpu
from vision.norms.kernels.cpu_build import UnavailableError, find_compiler
from vision.norms.kernels.ops import KERNELS, Kernel
from vision.norms.kernels.triton_config import MAX_DIM

BACKENDS = ("auto", "triton", "compiled", "eager")
VARIABLE = "VISION_NORM_BACKEND"

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


def choose_backend(requested: str, x: Tensor, dim: int, kernel: Kernel) -> str:
    """Which of "triton", "compiled" or "eager" computes a kernel's norm of `x`, `[..., dim]`.

    Raises:
        ValueError: `requested` is a kernel that cannot work on this input, with the reason.
    """
    # an exported program should run without this package
    if requested == "eager" or (requested == "auto" and torch.compiler.is_exporting()):
        return "eager"
    return _choose(requested, kernel.name, x.device.type, x.dtype, dim)


@torch.compiler.assume_constant_result
def _choose(requested: str, norm: str, device: str, dtype: torch.dtype, dim: int) -> str:
    return _decide(requested, KERNELS[norm], device, dtype, dim)


@cache
def _decide(requested: str, kernel: Kernel, device: str, dtype: torch.dtype, dim: int) -> str:
    automatic = requested == "auto"
    name = _KERNELS.get(device) if automatic else requested
    try:
        if name is None:
            raise UnavailableError("there is no kernel for this device")
        _check(name, kernel, device, dtype, dim)
    except UnavailableError as error:
        if not automatic:
            raise ValueError(
                f"norm backend {requested!r} cannot work on {device} input of {dtype}: {error}; "
                f"take backend 'auto' (or unset ${VARIABLE})"
            ) from None
        _announce(kernel.title, device, dtype, f"eager ({error})")
        return "eager"
    if automatic:
        _announce(kernel.title, device, dtype, name)
    return name


def _check(name: str, kernel: Kernel, device: str, dtype: torch.dtype, dim: int) -> None:
    """Raises UnavailableError with the reason if the kernel cannot work on such input."""
    if dtype not in cpu.DTYPES:
        raise UnavailableError("the kernels know float16, bfloat16, float32 and float64")
    if name == "compiled":
        if device != "cpu":
            raise UnavailableError("the C++ kernel is for the CPU")
        cpu.function(kernel.source, "forward", dtype)  # builds the library
        return
    if kernel.triton is None:
        raise UnavailableError(f"{kernel.title} has no Triton kernel")
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
def _announce(norm: str, device: str, dtype: torch.dtype, backend: str) -> None:
    kind = str(dtype).removeprefix("torch.")
    _log.info("%s on %s %s: backend %s", norm, device, kind, backend)
