"""DyISRU in Triton: y = w·√D x/sqrt(x² + c²) + b, which is √D z/sqrt(z² + 1) with z = x/|c|."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.isru_triton import isru
from vision.norms.kernels.row_norm import RowNorm
from vision.norms.kernels.rows_triton import bounded_gradients


@triton.jit
def _forward(x, kept, p, DIM: tl.constexpr):
    c, w, b, _ = p
    value, _ = isru(x / tl.abs(c))
    gain = tl.sqrt(tl.full([1, 1, 1], DIM, x.dtype))
    return w * (gain * value) + b


@triton.jit
def _backward(x, g, kept, p, DIM: tl.constexpr):
    c, w, _, _ = p
    a = 1 / tl.abs(c)
    value, root = isru(a * x)
    gain = tl.sqrt(tl.full([1, 1, 1], DIM, x.dtype))
    slope = gain * (root * root * root)
    dx, da, unused, dw, db = bounded_gradients(x, g, a, w, gain * value, slope)
    return dx, -da * a / c, dw, db, unused


NORM = RowNorm(_forward, _backward)
