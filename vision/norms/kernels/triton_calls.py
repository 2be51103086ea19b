"""Calls of a norm in Triton: any strides in, the shapes of ops.py out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def forward(
    norm: Any,
    x: Tensor,
    parameters: Sequence[Tensor | float],
    mask: Tensor | None,
    modulation: Sequence[Tensor | None],
    num_heads: int,
    eps: float,
    keep: float,
) -> tuple[Tensor, ...]:
    """y `[..., D]` and, as far as they are kept, 1/RMS `[...]`, values per head `[..., H]`."""
    given = _given(parameters, mask, modulation, num_heads, keep)
    y, *kept = norm.forward(_rows(x), given, eps)
    shapes = (x.shape[:-1], (*x.shape[:-1], num_heads))
    return y.view(x.shape), *(k.view(s) for k, s in zip(kept, shapes, strict=False))


def backward(
    norm: Any,
    dy: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor | float],
    kept: Sequence[Tensor],
    mask: Tensor | None,
    modulation: Sequence[Tensor | None],
    num_heads: int,
    eps: float,
    keep: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx `[..., D]`, the parameters' gradients, one after the other, `[N]`, and those of scale and
    shift `[2, S, D]`, `[0]` where nothing is modulated. What `eps` is for was kept."""
    rows = _rows(x)
    given = _given(parameters, mask, modulation, num_heads, keep)
    dx, sums, modulating = norm.backward(_rows(dy), rows, given, [k.detach() for k in kept])
    return dx.view(x.shape), sums, sums.new_empty(0) if modulating is None else modulating


def _given(
    parameters: Sequence[Tensor | float],
    mask: Tensor | None,
    modulation: Sequence[Tensor | None],
    num_heads: int,
    keep: float,
) -> Any:
    from vision.norms.kernels.row_norm import Rows  # imports Triton, which not every system has

    ready = [p.detach().contiguous() if isinstance(p, Tensor) else p for p in parameters]
    scale, shift = (None if t is None else _rows(t) for t in modulation)
    return Rows(ready, num_heads, mask, keep, scale, shift)


def _rows(x: Tensor) -> Tensor:
    """`[R, D]` with the last axis contiguous: a view where strides allow one, otherwise a copy."""
    dim = x.shape[-1]
    rows = x.detach().reshape(x.numel() // dim, dim)
    return rows if rows.stride(1) == 1 or dim == 1 else rows.contiguous()
