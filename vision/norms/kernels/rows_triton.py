"""The Triton skeleton of norms that work on whole rows: rows, dtypes, sums of gradients.

A norm is two functions that Triton compiles, and a `RowNorm` that holds them:

    forward(x, r, p0, p1, w, b, DIM)         y
    backward(x, g, r, p0, p1, w, DIM)        dx, and what dw, db, dp0, dp1 are sums of

x, g and the results are tiles [R, W] of R rows; w and b are [1, W], p0 and p1 learned scalars and
r is 1/RMS of each row, [R, 1], for those norms that say so. See dyt_triton.py. Sums over rows are
made as in seednorm_triton.py, whose heads make its tiles another shape: no atomics, so two runs on
one device give the same bits.
"""

# mypy: disable-error-code="no-untyped-def"
# (the arguments of what Triton compiles are pointers, scalars and constants)
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vision.norms.kernels.seednorm_triton import _WAVE, _WIDE, _device_of
from vision.norms.kernels.triton_config import LaunchConfig, backward_config, forward_config


@triton.jit
def bounded_gradients(x, g, a, w, value, slope):
    """The backward of y = w·f(a x + c) + b, from f and its slope."""
    through = w * g * slope
    return a * through, g * value, g, through * x, through


@triton.jit
def _load_rows(pointer, row, stride, rows, column, inside):
    start = row.to(tl.int64) * stride  # beyond 2^31 elements int32 would wrap
    mask = (row < rows)[:, None] & inside
    return tl.load(pointer + start[:, None] + column, mask=mask, other=0)


@triton.jit
def _store_rows(pointer, value, row, stride, rows, column, inside):
    mask = (row < rows)[:, None] & inside
    out = pointer + (row.to(tl.int64) * stride)[:, None] + column
    tl.store(out, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _channels(
    pointer, column, inside, HAS: tl.constexpr, NEUTRAL: tl.constexpr, WIDE: tl.constexpr
):
    """A parameter [1, W], or the number that stands for one that is lacking."""
    if HAS:
        return tl.load(pointer + column, mask=inside, other=0).to(WIDE)
    else:
        return tl.full([1, 1], NEUTRAL, WIDE)


@triton.jit
def _add(pointer, value, inside):
    total = tl.sum(value, axis=0, keep_dims=True)
    tl.store(pointer, tl.load(pointer, inside) + total, mask=inside)


@triton.jit
def forward_kernel(
    X, Y, P0, P1, WEIGHT, BIAS, RSTD, rows, stride, EPS: tl.constexpr,
    FORWARD: tl.constexpr, RMS: tl.constexpr, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
    DIM: tl.constexpr, WIDE: tl.constexpr, R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """y, and 1/RMS of each row where the norm needs it. One program takes R rows."""
    column = tl.arange(0, W)[None, :]
    inside = column < DIM
    row = tl.program_id(0) * R + tl.arange(0, R)
    x = _load_rows(X, row, stride, rows, column, inside).to(WIDE)
    w = _channels(WEIGHT, column, inside, HAS_WEIGHT, 1.0, WIDE)
    b = _channels(BIAS, column, inside, HAS_BIAS, 0.0, WIDE)
    r = tl.full([R, 1], 1.0, WIDE)
    if RMS:
        r = 1 / tl.sqrt(tl.sum(x * x, axis=1, keep_dims=True) / DIM + EPS)
        tl.store(RSTD + row[:, None], r, mask=(row < rows)[:, None])
    y = FORWARD(x, r, tl.load(P0).to(WIDE), tl.load(P1).to(WIDE), w, b, DIM)
    _store_rows(Y, y, row, DIM, rows, column, inside)


@triton.jit
def backward_kernel(
    X, DY, DX, P0, P1, WEIGHT, RSTD, PARTIAL, rows, x_stride, dy_stride,
    BACKWARD: tl.constexpr, RMS: tl.constexpr, HAS_WEIGHT: tl.constexpr, SUMS: tl.constexpr,
    DIM: tl.constexpr, WIDE: tl.constexpr, IN_REGISTERS: tl.constexpr,
    R: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """dx, and this program's part of the sums in PARTIAL `[programs, SUMS, D]`.

    A program takes every n-th group of R rows, n being the number of programs. The sums stay in
    registers or, for rows too long for that, in the program's own part of PARTIAL (zero before).
    """
    column = tl.arange(0, W)[None, :]
    inside = column < DIM
    own = PARTIAL + tl.program_id(0).to(tl.int64) * (SUMS * DIM) + column
    p0, p1 = tl.load(P0).to(WIDE), tl.load(P1).to(WIDE)
    if IN_REGISTERS:
        sum_w = tl.zeros([R, W], WIDE)
        sum_b = tl.zeros([R, W], WIDE)
        sum_0 = tl.zeros([R, W], WIDE)
        sum_1 = tl.zeros([R, W], WIDE)
    for first in range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row = first + tl.arange(0, R)
        x = _load_rows(X, row, x_stride, rows, column, inside).to(WIDE)
        g = _load_rows(DY, row, dy_stride, rows, column, inside).to(WIDE)
        w = _channels(WEIGHT, column, inside, HAS_WEIGHT, 1.0, WIDE)
        r = tl.full([R, 1], 1.0, WIDE)
        if RMS:
            r = tl.load(RSTD + row[:, None], mask=(row < rows)[:, None], other=0)
        dx, dw, db, d0, d1 = BACKWARD(x, g, r, p0, p1, w, DIM)
        _store_rows(DX, dx, row, DIM, rows, column, inside)
        if IN_REGISTERS:
            sum_w += dw
            if SUMS > 1:
                sum_b += db
            if SUMS > 2:
                sum_0 += d0
            if SUMS > 3:
                sum_1 += d1
        else:
            _add(own, dw, inside)
            if SUMS > 1:
                _add(own + DIM, db, inside)
            if SUMS > 2:
                _add(own + 2 * DIM, d0, inside)
            if SUMS > 3:
                _add(own + 3 * DIM, d1, inside)
    if IN_REGISTERS:
        tl.store(own, tl.sum(sum_w, axis=0, keep_dims=True), mask=inside)
        if SUMS > 1:
            tl.store(own + DIM, tl.sum(sum_b, axis=0, keep_dims=True), mask=inside)
        if SUMS > 2:
            tl.store(own + 2 * DIM, tl.sum(sum_0, axis=0, keep_dims=True), mask=inside)
        if SUMS > 3:
            tl.store(own + 3 * DIM, tl.sum(sum_1, axis=0, keep_dims=True), mask=inside)


@dataclass(frozen=True)
class RowNorm:
    """A norm over rows in Triton; `ops.Kernel` finds it as `NORM` in the module that it names.

    Attributes:
        forward_function: y of a tile; see above.
        backward_function: Its derivative.
        scalars: Learned scalars, which come before weight and bias, at most two.
        has_bias: Whether a bias comes after the weight.
        rms: Whether the functions use 1/RMS of a row; it is then kept for the backward.
    """

    forward_function: Any
    backward_function: Any
    scalars: int = 0
    has_bias: bool = True
    rms: bool = False

    def forward(
        self, x: Tensor, parameters: list[Tensor | None], num_heads: int, eps: float
    ) -> tuple[Tensor, ...]:
        """y `[R, D]` in x's dtype, and where it is kept 1/RMS `[R]`, float32 (float64 for it).

        Args:
            x: `[R, D]` of any row stride, its last axis contiguous.
            parameters: As the layer lists them, contiguous, any floating dtype; None where one is
                lacking.
            num_heads: Not used.
            eps: Added to the mean square.
        """
        (rows, dim), wide = x.shape, torch.promote_types(x.dtype, torch.float32)
        y = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
        rstd = torch.empty(rows if self.rms else 1, dtype=wide, device=x.device)
        if rows:
            config = forward_config(dim, 1, _WAVE)
            p0, p1, weight, bias = self._arrange(parameters, rstd)
            with _device_of(x):
                forward_kernel[(triton.cdiv(rows, config.rows),)](
                    *(x, y, p0, p1, _or(weight, rstd), _or(bias, rstd), rstd, rows, x.stride(0)),
                    EPS=eps,
                    FORWARD=self.forward_function,
                    HAS_BIAS=bias is not None,
                    **self._constants(x, weight, config),
                )
        return (y, rstd) if self.rms else (y,)

    def backward(
        self,
        dy: Tensor,
        x: Tensor,
        parameters: list[Tensor | None],
        kept: list[Tensor],
        num_heads: int,
    ) -> tuple[Tensor, Tensor]:
        """dx `[R, D]`, and the parameters' gradients, one after the other, `[N]`."""
        (rows, dim), wide = x.shape, torch.promote_types(x.dtype, torch.float32)
        count = 1 + self.has_bias + self.scalars
        dx = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
        total = torch.zeros(count, dim, dtype=wide, device=x.device)
        if rows:
            config = backward_config(dim, 1, x.device, _WAVE)
            programs = min(triton.cdiv(rows, config.rows), config.programs)
            partial = torch.zeros(programs, count, dim, dtype=wide, device=x.device)
            p0, p1, weight, _ = self._arrange(parameters, partial)
            with _device_of(x):
                backward_kernel[(programs,)](
                    *(x, dy, dx, p0, p1, _or(weight, partial), kept[0] if self.rms else partial),
                    *(partial, rows, x.stride(0), dy.stride(0)),
                    BACKWARD=self.backward_function,
                    SUMS=count,
                    IN_REGISTERS=config.in_registers,
                    **self._constants(x, weight, config),
                )
            total = partial.sum(0)
        channels = 1 + self.has_bias
        return dx, torch.cat([total[channels:].sum(1), total[:channels].flatten()])

    def _arrange(
        self, parameters: list[Tensor | None], unused: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Both scalars, weight and bias; `unused` is memory for what is read and not used."""
        scalars = [_or(p, unused) for p in parameters[: self.scalars]]
        scalars += [unused] * (2 - self.scalars)
        weight, bias = [*parameters[self.scalars :], None][:2]
        return scalars[0], scalars[1], weight, bias

    def _constants(self, x: Tensor, weight: Tensor | None, config: LaunchConfig) -> dict[str, Any]:
        return {
            "RMS": self.rms,
            "HAS_WEIGHT": weight is not None,
            "DIM": x.shape[1],
            "WIDE": _WIDE.get(x.dtype, tl.float32),
            "R": config.rows,
            "W": triton.next_power_of_2(x.shape[1]),
            "num_warps": config.warps,
        }


def _or(parameter: Tensor | None, unused: Tensor) -> Tensor:
    return unused if parameter is None else parameter
