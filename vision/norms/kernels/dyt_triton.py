"""DyT in Triton: y = w·tanh(a x) + b."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.rows_triton import RowNorm, bounded_gradients
from vision.norms.kernels.seednorm_triton import tanh


@triton.jit
def _forward(x, r, a, unused, w, b, DIM: tl.constexpr):
    return w * tanh(a * x) + b


@triton.jit
def _backward(x, g, r, a, unused, w, DIM: tl.constexpr):
    value = tanh(a * x)
    return bounded_gradients(x, g, a, w, value, 1 - value * value)


NORM = RowNorm(_forward, _backward, scalars=1)
