"""SeeDNorm in Triton: y = (e α + γ) ⊙ x r with r = 1/RMS(x) and per head e = m tanh(x·βᵀ).

m is what dropout multiplies the coefficient with. With u = x r, s = tanh(x·βᵀ), c = e α + γ and
g = dy, products elementwise: dx = r (g c − u mean(g c u)) + t β with t = m (1 − s²) Σ_head g u α;
over rows dα = Σ e g u, dβ = Σ t x and dγ = Σ g u.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.row_norm import RowNorm
from vision.norms.kernels.rows_triton import head_sum, inverse_rms, row_sum, tanh


@triton.jit
def _statistics(x, p, EPS: tl.constexpr, DIM: tl.constexpr):
    return inverse_rms(x, EPS, DIM), tanh(head_sum(x * p[1]))


@triton.jit
def _forward(x, kept, p, DIM: tl.constexpr):
    r, s, m = kept
    alpha, _, gamma, _ = p
    return (s * m * alpha + gamma) * (x * r)


@triton.jit
def _backward(x, g, kept, p, DIM: tl.constexpr):
    r, s, m = kept
    alpha, beta, gamma, _ = p
    scale = s * m * alpha + gamma
    gu = g * x * r
    slope = m * (1 - s * s) * head_sum(gu * alpha)
    dx = r * (g * scale - x * r * (row_sum(gu * scale) / DIM)) + slope * beta
    return dx, s * m * gu, slope * x, gu, gu


NORM = RowNorm(_forward, _backward, _statistics, per_head=True)
