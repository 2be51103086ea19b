"""Derf in Triton: y = w·erf(a x + c) + b."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.rows_triton import RowNorm, bounded_gradients


@triton.jit
def _forward(x, r, a, c, w, b, DIM: tl.constexpr):
    return w * tl.erf(a * x + c) + b


@triton.jit
def _backward(x, g, r, a, c, w, DIM: tl.constexpr):
    z = a * x + c
    slope = 1.1283791670955126 * tl.exp(-z * z)  # 2/√π
    return bounded_gradients(x, g, a, w, tl.erf(z), slope)


NORM = RowNorm(_forward, _backward, scalars=2)
