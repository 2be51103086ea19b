"""DyT in Triton: y = w·tanh(a x) + b."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.row_norm import RowNorm
from vision.norms.kernels.rows_triton import bounded_gradients, tanh


@triton.jit
def _forward(x, kept, p, DIM: tl.constexpr):
    a, w, b, _ = p
    return w * tanh(a * x) + b


@triton.jit
def _backward(x, g, kept, p, DIM: tl.constexpr):
    a, w, _, _ = p
    value = tanh(a * x)
    dx, da, unused, dw, db = bounded_gradients(x, g, a, w, value, 1 - value * value)
    return dx, da, dw, db, unused


NORM = RowNorm(_forward, _backward)
