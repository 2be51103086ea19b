"""LayerNorm in Triton: y = w ⊙ u + b with u = (x − m) r, m the mean and r = 1/sqrt(variance + eps).

A norm without heads keeps m where others keep a number of each head. With g = dy, products
elementwise: dx = r (g w − mean(g w) − u mean(g w u)); over rows dw = Σ g u and db = Σ g.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from vision.norms.kernels.row_norm import RowNorm
from vision.norms.kernels.rows_triton import row_sum


@triton.jit
def _centred(x, m, DIM: tl.constexpr):
    """x − m; 0 beyond the row's end, so that sums are those of the row."""
    channel = tl.arange(0, x.shape[2])[None, None, :]
    return tl.where(channel < DIM, x - m, 0)


@triton.jit
def _statistics(x, p, EPS: tl.constexpr, DIM: tl.constexpr):
    near = row_sum(x) / DIM
    # what rounding left over is a large part of the variance where all channels are nearly the same
    m = near + row_sum(_centred(x, near, DIM)) / DIM
    centred = _centred(x, m, DIM)
    return 1 / tl.sqrt(row_sum(centred * centred) / DIM + EPS), m


@triton.jit
def _forward(x, kept, p, DIM: tl.constexpr):
    r, m, _ = kept
    return p[0] * ((x - m) * r) + p[1]


@triton.jit
def _backward(x, g, kept, p, DIM: tl.constexpr):
    w, r = p[0], kept[0]
    u = _centred(x, kept[1], DIM) * r
    gu, gw = g * u, g * w
    dx = r * (gw - row_sum(gw) / DIM - u * (row_sum(gw * u) / DIM))
    return dx, gu, g, gu, gu


NORM = RowNorm(_forward, _backward, _statistics, per_head=True)
