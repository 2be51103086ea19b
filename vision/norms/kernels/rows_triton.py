"""The Triton skeleton of every norm: rows, heads, dtypes, dropout, modulation, sums of gradients.

A norm is functions that Triton compiles, and a `RowNorm` that holds them:

    forward(x, kept, p, DIM)             y
    backward(x, g, kept, p, DIM)         dx, and what the gradients of p are sums of
    statistics(x, p, EPS, DIM)           r and s, where a norm keeps numbers of its rows

x, g and the results are tiles [R, H, W]: R rows of H heads of W channels, one head in most norms;
W and H are rounded up to powers of two and x and g are 0 beyond the row's end. p are the four
parameters in the layer's order, [1, H, W], or [1, 1, 1] for a learned scalar and for one that is
lacking. kept is r [R, 1, 1], s and m [R, H, 1]: the numbers, and what dropout multiplies a head's
coefficient with (1 without it). See dyt_triton.py, rmsnorm_triton.py and seednorm_triton.py.

Memory is read once and written once forward, and x and dy are read once backward. A fixed number
of programs sum the gradients over rows, each in memory of its own, which is then added in a fixed
order: no atomics, so two runs on one kind of device give the same bits.
"""

# mypy: disable-error-code="no-untyped-def"
# (the arguments of what Triton compiles are pointers, scalars and constants)
from __future__ import annotations

import triton
import triton.language as tl


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
def head_sum(v):
    """The sum over each head, [R, H, 1]."""
    return tl.sum(v, axis=2, keep_dims=True)


@triton.jit
def row_sum(v):
    """The sum over each row, [R, 1, 1]."""
    return tl.sum(tl.sum(v, axis=2, keep_dims=True), axis=1, keep_dims=True)


@triton.jit
def inverse_rms(x, EPS: tl.constexpr, DIM: tl.constexpr):
    """1/sqrt(mean(x²) + eps) of each row, [R, 1, 1]."""
    return 1 / tl.sqrt(row_sum(x * x) / DIM + EPS)


@triton.jit
def bounded_gradients(x, g, a, w, value, slope):
    """The gradients of y = w·f(a x + c) + b by x, a, c, w and b, from f and its slope."""
    through = w * g * slope
    return a * through, through * x, through, g * value, g


@triton.jit
def _tile(HEADS: tl.constexpr, WIDTH: tl.constexpr, H: tl.constexpr, W: tl.constexpr):
    """Channel indices of a row's tile, [1, H, W], and which of them exist."""
    head, inner = tl.arange(0, H)[None, :, None], tl.arange(0, W)[None, None, :]
    return head * WIDTH + inner, (head < HEADS) & (inner < WIDTH)


@triton.jit
def _load_rows(pointer, row, stride, end, column, inside):
    """Tiles of several rows in the dtype of the memory; zero where there is none."""
    start = (row.to(tl.int64) * stride)[:, None, None]  # beyond 2^31 elements int32 would wrap
    return tl.load(pointer + start + column, mask=(row < end)[:, None, None] & inside, other=0)


@triton.jit
def _load_both(X, DY, row, x_stride, dy_stride, end, column, inside):
    """x and dy of several rows."""
    x = _load_rows(X, row, x_stride, end, column, inside)
    return x, _load_rows(DY, row, dy_stride, end, column, inside)


@triton.jit
def _load_samples(pointer, row, tokens, stride, end, column, inside, WIDE: tl.constexpr):
    """For each row the vector of its sample, which `tokens` adjacent rows share."""
    start = ((row // tokens).to(tl.int64) * stride)[:, None, None]
    mask = (row < end)[:, None, None] & inside
    return tl.load(pointer + start + column, mask=mask, other=0).to(WIDE)


@triton.jit
def _store_rows(pointer, value, row, stride, end, column, inside):
    out = pointer + (row.to(tl.int64) * stride)[:, None, None] + column
    mask = (row < end)[:, None, None] & inside
    tl.store(out, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def _parameter(pointer, column, inside, KIND: tl.constexpr, WIDE: tl.constexpr):
    """A parameter of a kind: "channels", "scalar", or the number that stands for one lacking."""
    if KIND == "channels":
        return tl.load(pointer + column, mask=inside, other=0).to(WIDE)
    elif KIND == "scalar":
        return tl.load(pointer).to(WIDE) + tl.zeros([1, 1, 1], WIDE)
    else:
        return tl.full([1, 1, 1], KIND, WIDE)


@triton.jit
def _heads(row, end, HEADS: tl.constexpr, H: tl.constexpr):
    """Where one number per row and head is, [R, H], and which of them exist."""
    head = tl.arange(0, H)[None, :]
    return row.to(tl.int64)[:, None] * HEADS + head, (row < end)[:, None] & (head < HEADS)


@triton.jit
def _undropped(MASK, UNDROPPED, row, end, HEADS: tl.constexpr, MASKED: tl.constexpr,
               WIDE: tl.constexpr, H: tl.constexpr):  # fmt: skip
    """What the coefficient of each head is multiplied with, [R, H, 1]."""
    if MASKED:
        at, exists = _heads(row, end, HEADS, H)
        kept = tl.load(MASK + at, mask=exists, other=0).to(WIDE)
        return (kept * tl.load(UNDROPPED))[:, :, None]
    else:
        return tl.full([1, 1, 1], 1.0, WIDE)


@triton.jit
def forward_kernel(
    X, Y, P0, P1, P2, P3, ROW_KEPT, HEAD_KEPT, MASK, UNDROPPED, SCALE, SHIFT,
    rows, tokens, x_stride, scale_stride, shift_stride,
    FORWARD: tl.constexpr, STATISTICS: tl.constexpr, EPS: tl.constexpr, KEPT: tl.constexpr,
    KIND0: tl.constexpr, KIND1: tl.constexpr, KIND2: tl.constexpr, KIND3: tl.constexpr,
    MASKED: tl.constexpr, MODULATED: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, R: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """y, and the numbers that are kept of rows (KEPT 1) and heads (2). A program takes R rows."""
    DIM: tl.constexpr = HEADS * WIDTH
    column, inside = _tile(HEADS, WIDTH, H, W)
    row = tl.program_id(0) * R + tl.arange(0, R)
    x = _load_rows(X, row, x_stride, rows, column, inside).to(WIDE)
    p = (
        _parameter(P0, column, inside, KIND0, WIDE), _parameter(P1, column, inside, KIND1, WIDE),
        _parameter(P2, column, inside, KIND2, WIDE), _parameter(P3, column, inside, KIND3, WIDE),
    )  # fmt: skip
    r = tl.full([1, 1, 1], 1.0, WIDE)
    s = r
    if KEPT > 0:
        r, s = STATISTICS(x, p, EPS, DIM)
        tl.store(ROW_KEPT + row, tl.reshape(r, [R]), mask=row < rows)
    if KEPT > 1:
        at, exists = _heads(row, rows, HEADS, H)
        tl.store(HEAD_KEPT + at, tl.reshape(s, [R, H]), mask=exists)
    m = _undropped(MASK, UNDROPPED, row, rows, HEADS, MASKED, WIDE, H)
    y = FORWARD(x, (r, s, m), p, DIM)
    if MODULATED:
        scale = _load_samples(SCALE, row, tokens, scale_stride, rows, column, inside, WIDE)
        shift = _load_samples(SHIFT, row, tokens, shift_stride, rows, column, inside, WIDE)
        y = y * (1 + scale) + shift
    _store_rows(Y, y, row, DIM, rows, column, inside)


@triton.jit
def _load_kept(ROW_KEPT, HEAD_KEPT, row, end, KEPT: tl.constexpr, HEADS: tl.constexpr,
               WIDE: tl.constexpr, H: tl.constexpr):  # fmt: skip
    """r and s as `statistics` gave them; 1 for what is not kept."""
    r = tl.full([1, 1, 1], 1.0, WIDE)
    s = r
    if KEPT > 0:
        r = tl.load(ROW_KEPT + row, mask=row < end, other=0)[:, None, None]
    if KEPT > 1:
        at, exists = _heads(row, end, HEADS, H)
        s = tl.load(HEAD_KEPT + at, mask=exists, other=0)[:, :, None]
    return r, s


@triton.jit
def _add(own, sums, k: tl.constexpr, value, DIM: tl.constexpr, inside, COUNT: tl.constexpr,
         IN_REGISTERS: tl.constexpr):  # fmt: skip
    """The k-th sum with `value` in it, or, where it is in memory, unchanged."""
    if k >= COUNT:
        return sums
    elif IN_REGISTERS:
        return sums + value
    else:
        total = tl.sum(value + tl.zeros_like(sums), axis=0, keep_dims=True)
        tl.store(own + k * DIM, tl.load(own + k * DIM, inside) + total, mask=inside)
        return sums


@triton.jit
def _store_sums(own, sums, first: tl.constexpr, end: tl.constexpr, DIM: tl.constexpr, inside):
    """Stores those of `sums` that are the first-th to the one before the end-th."""
    for k in tl.static_range(first, end):
        tl.store(own + k * DIM, tl.sum(sums[k - first], axis=0, keep_dims=True), mask=inside)


@triton.jit
def _share(rows, tokens, parts, MODULATED: tl.constexpr, R: tl.constexpr):
    """Where this program's rows begin and end, and whose they are: a sample's, if modulated."""
    program = tl.program_id(0)
    if MODULATED:
        sample = program // parts
        return sample * tokens + program % parts * R, (sample + 1) * tokens, sample
    else:
        return program * R, rows, program


@triton.jit
def _add_all(own, sums, values, DIM: tl.constexpr, inside, COUNT: tl.constexpr,
             IN_REGISTERS: tl.constexpr):  # fmt: skip
    """The first sums, those of the parameters' gradients, each with its value in it."""
    return (
        _add(own, sums[0], 0, values[0], DIM, inside, COUNT, IN_REGISTERS),
        _add(own, sums[1], 1, values[1], DIM, inside, COUNT, IN_REGISTERS),
        _add(own, sums[2], 2, values[2], DIM, inside, COUNT, IN_REGISTERS),
        _add(own, sums[3], 3, values[3], DIM, inside, COUNT, IN_REGISTERS),
    )


@triton.jit
def backward_kernel(
    X, DY, DX, P0, P1, P2, P3, ROW_KEPT, HEAD_KEPT, MASK, UNDROPPED, SCALE, PARTIAL,
    rows, tokens, parts, x_stride, dy_stride, scale_stride,
    FORWARD: tl.constexpr, BACKWARD: tl.constexpr, KEPT: tl.constexpr, COUNT: tl.constexpr,
    KIND0: tl.constexpr, KIND1: tl.constexpr, KIND2: tl.constexpr, KIND3: tl.constexpr,
    MASKED: tl.constexpr, MODULATED: tl.constexpr, HEADS: tl.constexpr, WIDTH: tl.constexpr,
    WIDE: tl.constexpr, PREFETCH: tl.constexpr, IN_REGISTERS: tl.constexpr,
    R: tl.constexpr, H: tl.constexpr, W: tl.constexpr,
):  # fmt: skip
    """dx, and this program's sums in PARTIAL `[programs, COUNT (+ 2 of a modulation), D]`.

    `parts` programs share a sample's `tokens` rows, or all rows where nothing is modulated: each
    takes every parts-th group of R of them. The sums stay in registers or, for rows too long for
    that, in the program's own part of PARTIAL (zero before).
    """
    DIM: tl.constexpr = HEADS * WIDTH
    ALL: tl.constexpr = COUNT + 2 * MODULATED
    column, inside = _tile(HEADS, WIDTH, H, W)
    own = PARTIAL + tl.program_id(0).to(tl.int64) * (ALL * DIM) + column
    begin, end, sample = _share(rows, tokens, parts, MODULATED, R)
    step = parts * R
    if MODULATED:
        at = SCALE + sample.to(tl.int64) * scale_stride + column
        scale = 1 + tl.load(at, mask=inside, other=0).to(WIDE)
    zero = tl.zeros([R if IN_REGISTERS else 1, H, W], WIDE)
    sum0, sum1, sum2, sum3, dscale, dshift = zero, zero, zero, zero, zero, zero
    p0 = _parameter(P0, column, inside, KIND0, WIDE)
    p1 = _parameter(P1, column, inside, KIND1, WIDE)
    if PREFETCH:
        row = begin + tl.arange(0, R)
        x_next, g_next = _load_both(X, DY, row, x_stride, dy_stride, end, column, inside)
    for first in range(begin, end, step):
        row = first + tl.arange(0, R)
        r, s = _load_kept(ROW_KEPT, HEAD_KEPT, row, end, KEPT, HEADS, WIDE, H)
        m = _undropped(MASK, UNDROPPED, row, end, HEADS, MASKED, WIDE, H)
        if PREFETCH:  # the next group loads while this one is worked on
            x, g = x_next.to(WIDE), g_next.to(WIDE)
            x_next, g_next = _load_both(X, DY, row + step, x_stride, dy_stride, end, column, inside)
        else:  # the parameters are too long to stay in registers: read again, from the cache
            x, g = _load_both(X, DY, row, x_stride, dy_stride, end, column, inside)
            x, g = x.to(WIDE), g.to(WIDE)
            p0 = _parameter(P0, column, inside, KIND0, WIDE)
            p1 = _parameter(P1, column, inside, KIND1, WIDE)
        p2 = _parameter(P2, column, inside, KIND2, WIDE)
        p3 = _parameter(P3, column, inside, KIND3, WIDE)
        kept, p = (r, s, m), (p0, p1, p2, p3)
        if MODULATED:
            y = FORWARD(x, kept, p, DIM)
            dscale = _add(own, dscale, COUNT, g * y, DIM, inside, ALL, IN_REGISTERS)
            dshift = _add(own, dshift, COUNT + 1, g, DIM, inside, ALL, IN_REGISTERS)
            g = g * scale
        dx, d0, d1, d2, d3 = BACKWARD(x, g, kept, p, DIM)
        _store_rows(DX, dx, row, DIM, end, column, inside)
        sums, values = (sum0, sum1, sum2, sum3), (d0, d1, d2, d3)
        sum0, sum1, sum2, sum3 = _add_all(own, sums, values, DIM, inside, COUNT, IN_REGISTERS)
    if IN_REGISTERS:
        _store_sums(own, (sum0, sum1, sum2, sum3), 0, COUNT, DIM, inside)
        _store_sums(own, (dscale, dshift), COUNT, ALL, DIM, inside)
