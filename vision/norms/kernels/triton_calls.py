"""Calls of a norm in Triton: any strides in, the shapes of ops.py out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def forward(
    norm: Any, x: Tensor, parameters: Sequence[Tensor | None], num_heads: int, eps: float
) -> tuple[Tensor, ...]:
    """y `[..., D]` and, as far as they are kept, 1/RMS `[...]`, values per head `[..., H]`."""
    y, *kept = norm.forward(_rows(x), [*map(_dense, parameters)], num_heads, eps)
    shapes = (x.shape[:-1], (*x.shape[:-1], num_heads))
    return y.view(x.shape), *(k.view(s) for k, s in zip(kept, shapes, strict=False))


def backward(
    norm: Any,
    dy: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor | None],
    kept: Sequence[Tensor],
    num_heads: int,
) -> tuple[Tensor, Tensor]:
    """dx `[..., D]` and the parameters' gradients, one after the other, `[N]`."""
    rows = _rows(x)
    shapes = ((len(rows),), (len(rows), num_heads))
    per_row = [k.view(s) for k, s in zip(kept, shapes, strict=False)]
    dx, sums = norm.backward(_rows(dy), rows, [*map(_dense, parameters)], per_row, num_heads)
    return dx.view(x.shape), sums.view(-1)


def _dense(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach().contiguous()


def _rows(x: Tensor) -> Tensor:
    """`[R, D]` with the last axis contiguous: a view where strides allow one, otherwise a copy."""
    dim = x.shape[-1]
    rows = x.detach().reshape(x.numel() // dim, dim)
    return rows if rows.stride(1) == 1 or dim == 1 else rows.contiguous()
