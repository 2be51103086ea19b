"""Derf in Triton: y = w·erf(a x + c) + b."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.row_norm import RowNorm
from vision.norms.kernels.rows_triton import bounded_gradients


@triton.jit
def _forward(x, kept, p, DIM: tl.constexpr):
    a, c, w, b = p
    return w * tl.erf(a * x + c) + b


@triton.jit
def _backward(x, g, kept, p, DIM: tl.constexpr):
    a, c, w, _ = p
    z = a * x + c
    slope = 1.1283791670955126 * tl.exp(-z * z)  # 2/√π
    return bounded_gradients(x, g, a, w, tl.erf(z), slope)


NORM = RowNorm(_forward, _backward)
