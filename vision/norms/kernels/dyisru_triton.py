"""DyISRU in Triton: y = w·√D x/sqrt(x² + c²) + b, which is √D z/sqrt(z² + 1) with z = x/|c|."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.isru_triton import isru
from vision.norms.kernels.rows_triton import RowNorm, bounded_gradients


@triton.jit
def _forward(x, r, c, unused, w, b, DIM: tl.constexpr):
    value, _ = isru(x / tl.abs(c))
    gain = tl.sqrt(tl.full([1, 1], DIM, x.dtype))
    return w * (gain * value) + b


@triton.jit
def _backward(x, g, r, c, unused, w, DIM: tl.constexpr):
    a = 1 / tl.abs(c)
    value, root = isru(a * x)
    gain = tl.sqrt(tl.full([1, 1], DIM, x.dtype))
    dx, dw, db, da, rest = bounded_gradients(x, g, a, w, gain * value, gain * (root * root * root))
    return dx, dw, db, -da * a / c, rest


NORM = RowNorm(_forward, _backward, scalars=1)
