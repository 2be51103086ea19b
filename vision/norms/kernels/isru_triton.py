"""ISRU in Triton: y = w·z/sqrt(z² + 1) + b with z = a x + c."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.row_norm import RowNorm
from vision.norms.kernels.rows_triton import bounded_gradients


@triton.jit
def isru(z):
    """z/sqrt(z² + 1) and 1/sqrt(z² + 1); ±1 where squares might overflow."""
    root = 1 / tl.sqrt(z * z + 1)
    sign = tl.where(z < 0, -1.0, 1.0)
    return tl.where(tl.abs(z) > 1e18, sign.to(z.dtype), z * root), root


@triton.jit
def _forward(x, kept, p, DIM: tl.constexpr):
    a, c, w, b = p
    value, _ = isru(a * x + c)
    return w * value + b


@triton.jit
def _backward(x, g, kept, p, DIM: tl.constexpr):
    a, c, w, _ = p
    value, root = isru(a * x + c)
    return bounded_gradients(x, g, a, w, value, root * root * root)


NORM = RowNorm(_forward, _backward)
