"""SeeDNorm in Triton, for CUDA and ROCm: one read and one write forward, two and one backward.

A row of D channels is a tile [heads, width of a head], both sizes rounded up to powers of two and
masked, so that the dot product of a head is a sum over one axis. A program works on tiles of
several rows, [R, H, W], where rows are short.

With r = 1/RMS(x), u = x r, s = tanh(x·βᵀ) per head, c = s α + γ and g = dy, products elementwise:
dx = r (g c − u mean(g c u)) + ds (1 − s²) β with ds = Σ_head g u α; dα = Σ s g u, dγ = Σ g u and
dβ = Σ ds (1 − s²) x over rows. A fixed number of programs sum the last three, each in a row of its
own of a small buffer, which are then added in a fixed order: there are no atomics, so a run
repeated on the same device gives the same bits.
"""

# mypy: disable-error-code="no-untyped-def"
# (the arguments of what Triton compiles are pointers, scalars and constants)
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vision.norms.kernels.triton_config import LaunchConfig, backward_config, forward_config

_WIDE = {torch.float64: tl.float64}  # precision of the arithmetic; float32 for all others
_WAVE = 64 if torch.version.hip else 32


@triton.jit
def tanh(v):
    """tanh with a small relative error everywhere: a Padé approximant near 0, exp elsewhere."""
    q = v * v
    above = (((q + 990) * q + 135135) * q + 4729725) * q + 34459425
    below = (((45 * q + 13860) * q + 945945) * q + 16216200) * q + 34459425
    e = tl.exp(-2 * tl.abs(v))  # never overflows
    far = (1 - e) / (1 + e)
    return tl.where(q < 0.25, v * above / below, tl.where(v < 0, -far, far))


@triton.jit
def _tile(HEADS: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Channel indices of a row's tile, [1, H, W], and which of them exist."""
    head, inner = tl.arange(0, H)[None, :, None], tl.arange(0, W)[None, None, :]
    return head * WIDTH + inner, (head < HEADS) & (inner < WIDTH)


@triton.jit
def _vector(pointer, column, inside, WIDE: tl.constexpr):
    return tl.load(pointer + column, mask=inside, other=0).to(WIDE)


@triton.jit
def _rows(pointer, row, stride, rows, column, inside):
    """Tiles of several rows, [R, H, W], in the dtype of the memory; zero where there is none."""
    start = row.to(tl.int64) * stride  # beyond 2^31 elements int32 would wrap
    mask = (row < rows)[:, None, None] & inside
    return tl.load(pointer + start[:, None, None] + column, mask=mask, other=0)


@triton.jit
def _store_rows(pointer, value, row, stride, rows, column, inside):
    start = row.to(tl.int64) * stride
    mask = (row < rows)[:, None, None] & inside
    out = pointer + start[:, None, None] + column
    tl.store(out, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _heads(pointer, row, rows, HEADS: tl.constexpr, H: tl.constexpr):
    """Addresses of one number per row and head, [R, H], and which of them exist."""
    head = tl.arange(0, H)[None, :]
    at = pointer + row.to(tl.int64)[:, None] * HEADS + head
    return at, (row < rows)[:, None] & (head < HEADS)


@triton.jit
def _scale(s, alpha, GAMMA, column, inside, HAS_GAMMA: tl.constexpr, WIDE: tl.constexpr):
    """s α + γ, [R, H, W]."""
    scale = s[:, :, None] * alpha
    if HAS_GAMMA:
        scale += _vector(GAMMA, column, inside, WIDE)
    else:
        scale += 1
    return scale


@triton.jit
def _gradients(x, g, rstd, s, scale, alpha, beta, DIM: tl.constexpr):
    """dx, g u and the gradient of each head's x·βᵀ, [R, H, 1]."""
    gu = g * x * rstd
    pull = tl.sum(tl.sum(gu * scale, axis=2), axis=1) / DIM  # [R]
    slope = (tl.sum(gu * alpha, axis=2) * (1 - s * s))[:, :, None]  # [R, H, 1]
    dx = rstd * (g * scale - x * rstd * pull[:, None, None]) + slope * beta
    return dx, gu, slope


@triton.jit
def _add(pointer, value, inside):
    tl.store(pointer, tl.load(pointer, inside) + value, mask=inside)


@triton.jit
def forward_kernel(
    X, Y, ALPHA, BETA, GAMMA, RSTD, S, rows, stride,
    EPS: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr, HAS_GAMMA: tl.constexpr,
    WIDE: tl.constexpr, R: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """y, and per row 1/RMS and the tanh value of each head. One program takes R rows."""
    column, inside = _tile(HEADS, WIDTH, H, W)
    row = tl.program_id(0) * R + tl.arange(0, R)
    x = _rows(X, row, stride, rows, column, inside).to(WIDE)  # [R, H, W]

    mean = tl.sum(tl.sum(x * x, axis=2), axis=1) / (HEADS * WIDTH)  # [R]
    rstd = 1 / tl.sqrt(mean + EPS)
    s = tanh(tl.sum(x * _vector(BETA, column, inside, WIDE), axis=2))  # [R, H]
    alpha = _vector(ALPHA, column, inside, WIDE)
    y = _scale(s, alpha, GAMMA, column, inside, HAS_GAMMA, WIDE) * (x * rstd[:, None, None])

    _store_rows(Y, y, row, HEADS * WIDTH, rows, column, inside)
    tl.store(RSTD + row, rstd, mask=row < rows)
    s_at, exists = _heads(S, row, rows, HEADS, H)
    tl.store(s_at, s, mask=exists)


@triton.jit
def backward_kernel(
    X, DY, DX, ALPHA, BETA, GAMMA, RSTD, S, PARTIAL, rows, x_stride, dy_stride,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, HAS_GAMMA: tl.constexpr, WIDE: tl.constexpr,
    PREFETCH: tl.constexpr, IN_REGISTERS: tl.constexpr,
    R: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """dx, and this program's part of dα, dβ, dγ in PARTIAL `[programs, 3, D]`.

    A program takes every n-th group of R rows, n being the number of programs. The sums stay in
    registers or, for rows too long for that, in the program's own part of PARTIAL (zero before).
    """
    DIM: tl.constexpr = HEADS * WIDTH
    column, inside = _tile(HEADS, WIDTH, H, W)
    step = tl.num_programs(0) * R
    own = PARTIAL + tl.program_id(0).to(tl.int64) * (3 * DIM) + column
    if IN_REGISTERS:
        dalpha = tl.zeros([R, H, W], WIDE)
        dbeta = tl.zeros([R, H, W], WIDE)
        dgamma = tl.zeros([R, H, W], WIDE)
    if PREFETCH:
        # rows short enough for α and β to stay too; otherwise they are read again, from the cache
        alpha = _vector(ALPHA, column, inside, WIDE)
        beta = _vector(BETA, column, inside, WIDE)
        row = tl.program_id(0) * R + tl.arange(0, R)
        x_next = _rows(X, row, x_stride, rows, column, inside)
        g_next = _rows(DY, row, dy_stride, rows, column, inside)
    for first in range(tl.program_id(0) * R, rows, step):
        row = first + tl.arange(0, R)
        rstd = tl.load(RSTD + row, mask=row < rows, other=0)[:, None, None]
        s_at, exists = _heads(S, row, rows, HEADS, H)
        s = tl.load(s_at, mask=exists, other=0)
        if PREFETCH:  # the next group loads while this one is worked on
            x, g = x_next.to(WIDE), g_next.to(WIDE)
            x_next = _rows(X, row + step, x_stride, rows, column, inside)
            g_next = _rows(DY, row + step, dy_stride, rows, column, inside)
        else:
            x = _rows(X, row, x_stride, rows, column, inside).to(WIDE)
            g = _rows(DY, row, dy_stride, rows, column, inside).to(WIDE)
            alpha = _vector(ALPHA, column, inside, WIDE)
            beta = _vector(BETA, column, inside, WIDE)
        scale = _scale(s, alpha, GAMMA, column, inside, HAS_GAMMA, WIDE)
        dx, gu, slope = _gradients(x, g, rstd, s, scale, alpha, beta, DIM)
        _store_rows(DX, dx, row, DIM, rows, column, inside)
        if IN_REGISTERS:
            dalpha += s[:, :, None] * gu
            dbeta += slope * x
            dgamma += gu
        else:
            _add(own, s[:, :, None] * gu, inside)
            _add(own + DIM, slope * x, inside)
            _add(own + 2 * DIM, gu, inside)
    if IN_REGISTERS:
        tl.store(own, tl.sum(dalpha, axis=0, keep_dims=True), mask=inside)
        tl.store(own + DIM, tl.sum(dbeta, axis=0, keep_dims=True), mask=inside)
        tl.store(own + 2 * DIM, tl.sum(dgamma, axis=0, keep_dims=True), mask=inside)


def forward(
    x: Tensor, parameters: list[Any], num_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y `[R, D]` in x's dtype, 1/RMS `[R]` and tanh values `[R, H]` in float32 (float64 for it).

    Arguments as in `ops.Kernel`, with x `[R, D]` of any row stride, its last axis contiguous, and
    contiguous parameters of any floating dtype: alpha, beta, gamma or None.
    """
    (rows, dim), (alpha, beta, gamma) = x.shape, parameters
    wide = torch.promote_types(x.dtype, torch.float32)
    y = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    rstd = torch.empty(rows, dtype=wide, device=x.device)
    s = torch.empty(rows, num_heads, dtype=wide, device=x.device)
    if rows:
        config = forward_config(dim, num_heads, _WAVE)
        with _device_of(x):
            forward_kernel[(triton.cdiv(rows, config.rows),)](
                *(x, y, alpha, beta, alpha if gamma is None else gamma, rstd, s, rows, x.stride(0)),
                EPS=eps,
                **_constants(x, num_heads, gamma, config),
            )
    return y, rstd, s


def backward(
    dy: Tensor,
    x: Tensor,
    parameters: list[Any],
    kept: list[Tensor],
    num_heads: int,
) -> tuple[Tensor, Tensor]:
    """dx `[R, D]` and the gradients of alpha, beta, gamma as `[3, D]`; arguments as in `forward`,
    which gave `kept`.

    Two runs on one kind of device give the same bits.
    """
    (rows, dim), (alpha, beta, gamma), (rstd, s) = x.shape, parameters, kept
    dx = torch.empty(rows, dim, dtype=x.dtype, device=x.device)
    if rows == 0:
        return dx, rstd.new_zeros(3, dim)
    config = backward_config(dim, num_heads, x.device, _WAVE)
    programs = min(triton.cdiv(rows, config.rows), config.programs)
    make = torch.empty if config.in_registers else torch.zeros
    partial = make(programs, 3, dim, dtype=rstd.dtype, device=x.device)
    with _device_of(x):
        backward_kernel[(programs,)](
            *(x, dy, dx, alpha, beta, alpha if gamma is None else gamma, rstd, s, partial),
            *(rows, x.stride(0), dy.stride(0)),
            PREFETCH=config.prefetch,
            IN_REGISTERS=config.in_registers,
            **_constants(x, num_heads, gamma, config),
        )
    return dx, partial.sum(0)


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _constants(
    x: Tensor, num_heads: int, gamma: Tensor | None, config: LaunchConfig
) -> dict[str, Any]:
    width = x.shape[1] // num_heads
    return {
        "HEADS": num_heads,
        "WIDTH": width,
        "HAS_GAMMA": gamma is not None,
        "WIDE": _WIDE.get(x.dtype, tl.float32),
        "R": config.rows,
        "H": triton.next_power_of_2(num_heads),
        "W": triton.next_power_of_2(width),
        "num_warps": config.warps,
    }
