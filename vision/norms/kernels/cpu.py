"""The C++ kernels of the folder cpu/: tensors in, tensors out."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vision.norms.kernels.cpu_build import UnavailableError, load_library

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
MAX_PARAMETERS = 4

_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
# parameters, rstd, values per head, mask; keep, eps; rows, dim, heads; the modulation and its rows
# per sample; threads (struct Call)
_CALL = [*[_POINTER] * 7, *[ctypes.c_double] * 2, *[_INT64] * 3]
_CALL += [*[_POINTER] * 4, _INT64, ctypes.c_int]
_ARGUMENTS = {
    "forward": [_POINTER, _INT64, _POINTER, *_CALL],
    "backward": [*[_POINTER, _INT64] * 2, _POINTER, _POINTER, *_CALL],
    "keep_mask": [_POINTER, _INT64, ctypes.c_uint64, ctypes.c_double, ctypes.c_int],
}
_CPU = Path(__file__).with_name("cpu")
_KEEP_MASK = _CPU / "keep_mask.cpp"
_log = logging.getLogger("vision")
_wide = {dtype: torch.promote_types(dtype, torch.float32) for dtype in DTYPES}


def forward(
    source: Path,
    x: Tensor,
    parameters: Sequence[Tensor],
    kept: Sequence[Tensor],
    mask: Tensor | None,
    modulation: Sequence[Tensor | None],
    num_heads: int,
    eps: float,
    keep: float,
) -> Tensor:
    """y, `[..., D]`, contiguous, in x's dtype; fills `kept`.

    Args:
        source: The kernel's C++ file.
        x: `[..., D]`, any strides.
        parameters: At most four, float64 for float64 x and float32 otherwise, contiguous.
        kept: What the backward needs besides: 1/RMS `[R]` and values per head `[R, H]`, or less.
        mask: `[R, H]` bool, contiguous, false where a head's coefficient is dropped.
        modulation: Scale and shift, `[S, ..., D]`, of R/S adjacent rows each, or None twice.
        num_heads: H.
        eps: Added to the mean square.
        keep: Probability that a coefficient is not dropped.
    """
    rows, stride = _rows(x)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    inside = _prepare(x, modulation)
    call = _call(x, parameters, kept, mask, inside, num_heads, eps, keep)
    function(source, "forward", x.dtype)(rows.data_ptr(), stride, y.data_ptr(), *call)
    return y


def backward(
    source: Path,
    dy: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
    kept: Sequence[Tensor],
    mask: Tensor | None,
    modulation: Sequence[Tensor | None],
    num_heads: int,
    eps: float,
    keep: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx as y in `forward`, the parameters' gradients, one after the other, `[N]`, and those of
    scale and shift `[2, S, D]`, `[0]` without them.

    The bits of all depend neither on the run nor on the number of threads.
    """
    rows, stride = _rows(x)
    grad, grad_stride = _rows(dy)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    sums = torch.empty(sum([p.numel() for p in parameters]), dtype=_wide[x.dtype])
    inside = _prepare(x, modulation)
    # zeros: of samples without rows no sum is written
    both = sums.new_zeros((2, *inside[0].shape) if inside else 0)
    call = _call(x, parameters, kept, mask, (*inside, *both), num_heads, eps, keep)
    function(source, "backward", x.dtype)(
        *(rows.data_ptr(), stride, grad.data_ptr(), grad_stride, dx.data_ptr(), sums.data_ptr()),
        *call,
    )
    return dx, sums, both


def keep_mask(key: Tensor, shape: Sequence[int], keep: float) -> Tensor:
    """A bool mask of `shape`, true with probability `keep`, as `key`, an int64 `[]`, decides."""
    mask = torch.empty(shape, dtype=torch.bool)
    function(_KEEP_MASK, "keep_mask")(
        mask.data_ptr(), mask.numel(), key.item(), keep, torch.get_num_threads()
    )
    return mask


@cache
def function(source: Path, name: str, dtype: torch.dtype | None = None) -> Any:
    """The C function "forward" or "backward" for x of a dtype, or one that has none.

    Builds the library when first asked.

    Raises:
        UnavailableError: it cannot be built here.
    """
    found = getattr(load_library(source), f"{name}_{DTYPES[dtype]}" if dtype else name)
    found.argtypes, found.restype = _ARGUMENTS[name], None
    return found


def direct_kernel(title: str, source: Path, dtype: torch.dtype, kept: int) -> int:
    """What names the kernel for x of a dtype in `direct_call`; `kept` arrays per row are kept."""
    found = [function(source, name, dtype) for name in ("forward", "backward")]
    addresses = [ctypes.cast(f, _POINTER).value or 0 for f in found]
    return int(torch.ops.vision.fused_kernel(title, *addresses, kept))


@cache
def keep_mask_address() -> int:
    """Where the function behind `keep_mask` is, for `direct_call`."""
    return ctypes.cast(function(_KEEP_MASK, "keep_mask"), _POINTER).value or 0


@cache
def direct_call() -> Any:
    """`vision::fused_norm` of cpu/dispatch.cpp; None, which is said, where it cannot be built."""
    try:
        load_library(_CPU / "dispatch.cpp", with_torch=True)
    except UnavailableError as error:
        _log.warning("calls of fused norms take longer than they need to: %s", error)
        return None
    return torch.ops.vision.fused_norm.default


def _call(
    x: Tensor,
    parameters: Sequence[Tensor],
    kept: Sequence[Tensor],
    mask: Tensor | None,
    modulation: Sequence[Tensor],
    num_heads: int,
    eps: float,
    keep: float,
) -> list[Any]:
    """The arguments `_CALL`."""
    dim = x.shape[-1]
    pointers: list[Any] = [p.data_ptr() for p in parameters]
    pointers += [None] * (MAX_PARAMETERS - len(pointers))
    pointers += [k.data_ptr() for k in kept]
    pointers += [None] * (MAX_PARAMETERS + 2 - len(pointers))
    pointers.append(None if mask is None else mask.data_ptr())
    rows = x.numel() // dim
    pointers += [keep, eps, rows, dim, num_heads, *(t.data_ptr() for t in modulation)]
    pointers += [None] * (4 - len(modulation))
    tokens = rows // len(modulation[0]) if modulation and rows else 1
    return [*pointers, tokens, torch.get_num_threads()]


def _prepare(x: Tensor, modulation: Sequence[Tensor | None]) -> list[Tensor]:
    """Scale and shift as the kernels read them, `[S, D]`, or nothing."""
    wide = _wide[x.dtype]
    return [
        t.to(wide).reshape(len(t), x.shape[-1]).contiguous() for t in modulation if t is not None
    ]


def _rows(x: Tensor) -> tuple[Tensor, int]:
    """x as rows whose elements are adjacent, and from one row to the next; copied if it must be."""
    dim = x.shape[-1]
    if x.is_contiguous():
        return x, dim
    rows = x.reshape(x.numel() // dim, dim)
    rows = rows if rows.stride(1) == 1 or dim == 1 else rows.contiguous()
    return rows, rows.stride(0)
