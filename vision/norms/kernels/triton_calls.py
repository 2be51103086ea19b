"""Calls of a Triton kernel's module: any strides in, the shapes of ops.py out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def forward(
    module: Any, x: Tensor, parameters: Sequence[Tensor | None], num_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y `[..., D]`, 1/RMS `[...]`, tanh values `[..., H]`."""
    y, rstd, s = module.forward(_rows(x), *map(_dense, parameters), num_heads, eps)
    return y.view(x.shape), rstd.view(x.shape[:-1]), s.view(*x.shape[:-1], num_heads)


def backward(
    module: Any,
    dy: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor | None],
    kept: Sequence[Tensor],
    num_heads: int,
) -> tuple[Tensor, Tensor]:
    """dx `[..., D]` and the parameters' gradients, one after the other, `[N]`."""
    rows, (rstd, s) = _rows(x), kept
    per_row = (rstd.view(-1), s.view(len(rows), num_heads))
    dx, sums = module.backward(_rows(dy), rows, *map(_dense, parameters), *per_row, num_heads)
    return dx.view(x.shape), sums.view(-1)


def _dense(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.detach().contiguous()


def _rows(x: Tensor) -> Tensor:
    """`[R, D]` with the last axis contiguous: a view where strides allow one, otherwise a copy."""
    dim = x.shape[-1]
    rows = x.detach().reshape(x.numel() // dim, dim)
    return rows if rows.stride(1) == 1 or dim == 1 else rows.contiguous()
