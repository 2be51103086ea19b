"""SeeDNorm on the CPU: tensors in, tensors out, around the C++ of seednorm.cpp."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision.norms.kernels.cpu_build import load_library

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}

_SOURCE = Path(__file__).with_name("seednorm.cpp")
_MAX_CHUNKS = 64  # partial sums of the parameters' gradients; a fixed number keeps results fixed
_MIN_ROWS = 16  # rows that a chunk should have to be worth its own sums

_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "forward": [_POINTER, _INT64, *[_POINTER] * 6, *[_INT64] * 3, ctypes.c_double, ctypes.c_int],
    "backward": [*[_POINTER, _INT64] * 2, *[_POINTER] * 8, *[_INT64] * 4, ctypes.c_int],
}


def forward(
    x: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor | None, num_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y `[R, D]` in x's dtype, 1/RMS `[R]` and tanh values `[R, H]` in the parameters' dtype.

    Arguments as in `ops.seednorm`, with x `[R, D]` of any row stride, its last axis contiguous, and
    contiguous parameters in float64 for float64 x and in float32 otherwise.
    """
    rows, dim = x.shape
    gamma = torch.ones_like(alpha) if gamma is None else gamma
    y = torch.empty(rows, dim, dtype=x.dtype)
    rstd, s = alpha.new_empty(rows), alpha.new_empty(rows, num_heads)
    function("forward", x.dtype)(
        *(x.data_ptr(), x.stride(0), *_pointers(y, rstd, s, alpha, beta, gamma)),
        *(rows, dim, num_heads, eps, torch.get_num_threads()),
    )
    return y, rstd, s


def backward(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    beta: Tensor,
    gamma: Tensor | None,
    rstd: Tensor,
    s: Tensor,
    num_heads: int,
) -> tuple[Tensor, Tensor]:
    """dx `[R, D]` and the gradients of alpha, beta, gamma as `[3, D]`; arguments as in `forward`.

    The bits of both depend neither on the run nor on the number of threads.
    """
    rows, dim = x.shape
    gamma = torch.ones_like(alpha) if gamma is None else gamma
    chunks = min(_MAX_CHUNKS, -(-rows // _MIN_ROWS))
    dx = torch.empty(rows, dim, dtype=x.dtype)
    partial, total = alpha.new_empty(chunks, 3, dim), alpha.new_empty(3, dim)
    function("backward", x.dtype)(
        *(x.data_ptr(), x.stride(0), dy.data_ptr(), dy.stride(0)),
        *_pointers(dx, rstd, s, alpha, beta, gamma, partial, total),
        *(rows, dim, num_heads, chunks, torch.get_num_threads()),
    )
    return dx, total


@cache
def function(name: str, dtype: torch.dtype) -> Any:
    """The C function "forward" or "backward" for x of a dtype; builds the library when first asked.

    Raises:
        UnavailableError: it cannot be built here.
    """
    found = getattr(load_library(_SOURCE), f"seednorm_{name}_{DTYPES[dtype]}")
    found.argtypes, found.restype = _ARGUMENTS[name], None
    return found


def _pointers(*tensors: Tensor) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors]
