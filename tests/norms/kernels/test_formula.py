"""Every kernel against the plain formula in float64: forward and all four gradients.

Runs as it is for the C++ kernel and, on a GPU, for Triton; test_interpreter.py runs it once more
with TRITON_INTERPRET=1, where the places are Triton's kernels on CPU tensors.
"""

from __future__ import annotations

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vision.norms.seednorm import SeeDNorm

SLOW = os.environ.get("TRITON_INTERPRET") == "1"  # an interpreted kernel takes a second
grid = settings(max_examples=50 if SLOW else 200, deadline=None, derandomize=True)
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
LAYOUTS = ["contiguous", "rows apart", "channels first", "off by one"]


@grid
@given(
    rows=st.sampled_from([(), (0,), (1,), (2, 3), (17,), (3, 0), (5, 13)]),
    num_heads=st.integers(1, 9),
    width=st.integers(1, 48),
    dtype=st.sampled_from(DTYPES),
    parameter_dtype=st.sampled_from([None, torch.float32, torch.bfloat16]),
    affine=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 2**31 - 1),
)
def test_forward_and_gradients_follow_the_formula(
    place, make, agree, rows, num_heads, width, dtype, parameter_dtype, affine, layout, seed
):
    shape = (*rows, num_heads * width)
    inputs = make(place.device, shape, num_heads, dtype, parameter_dtype, affine, layout, seed)
    agree(inputs, place.backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("dim", "num_heads"),
    [(192, 12), (384, 1), (768, 16), (1024, 16), (1152, 16), (4096, 1), (8193, 3), (16384, 8)],
)
def test_sizes_of_real_models(place, make, agree, dim, num_heads, dtype):
    agree(make(place.device, (3, dim), num_heads, dtype), place.backend)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 1025])
def test_rows_that_do_not_fill_the_last_chunk(place, make, agree, rows):
    agree(make(place.device, (rows, 24), 3), place.backend)


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_mask_acts_as_in_the_formula_with_its_gradients(place, num_heads, dtype, make):
    inputs = make(place.device, (40, 24), num_heads, dtype)
    mask, keep = torch.rand(40, num_heads, generator=torch.Generator().manual_seed(0)) < 0.7, 0.7
    mask = mask.to(place.device)
    kernel = SeeDNorm.kernel(
        inputs.x,
        *inputs.parameters,
        num_heads=num_heads,
        eps=1e-6,
        mask=mask,
        keep=keep,
        backend=place.backend,
    )
    leaves = [t.detach().double().requires_grad_() for t in (inputs.x, *inputs.parameters)]
    x, alpha, beta, gamma = leaves
    heads = (num_heads, 24 // num_heads)
    coefficient = torch.tanh((x * beta).unflatten(-1, heads).sum(-1)) * mask / keep  # [40, H]
    scale = coefficient.repeat_interleave(heads[1], -1) * alpha + gamma
    plain = scale * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    got = [kernel, *torch.autograd.grad(kernel, [inputs.x, *inputs.parameters], inputs.dy)]
    wanted = [plain, *torch.autograd.grad(plain, leaves, inputs.dy.double())]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7}[dtype]
    for a, b in zip(got, wanted, strict=True):
        error = (a.double() - b).detach().abs().max()
        assert error <= tolerance * b.detach().abs().max()


def test_two_runs_give_the_same_bits(place, make, run):
    inputs = make(place.device, (150, 96), 4)
    first, second = run(inputs, place.backend), run(inputs, place.backend)
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))


def test_gradcheck_in_float64(place, make):
    inputs = make(place.device, (4, 6), 2, torch.float64)
    assert torch.autograd.gradcheck(
        lambda *t: SeeDNorm.kernel(*t, num_heads=2, eps=1e-6, backend=place.backend),
        (inputs.x, *inputs.parameters),
        nondet_tol=0.0,
    )


@pytest.mark.parametrize("size", [1e-30, 1e-4, 1e4, 1e15])
def test_gradients_survive_small_and_large_inputs(place, make, agree, size):
    inputs = make(place.device, (5, 32), 2)
    with torch.no_grad():
        inputs.x *= size
        inputs.parameters[1] /= size if size > 1 else 1
    agree(inputs, place.backend)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_stays_in_its_row(place, make, run, value):
    inputs = make(place.device, (3, 32), 2)
    with torch.no_grad():
        inputs.x[1, 5] = value
    y, (dx, *_) = run(inputs, place.backend)
    assert y[1].isnan().any() and dx[1].isnan().any()
    assert y[[0, 2]].isfinite().all() and dx[[0, 2]].isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e-6, 0.1, 0.499, 0.501, 3.0, 9.0, 11.0, 1e4])
def test_tanh_values_are_accurate(place, value):
    one = torch.ones(1, 1, device=place.device)
    for sign in (1, -1):
        beta = torch.tensor([sign * value], device=place.device)
        rest = (None, None, None, 1, 1e-6, 1.0, place.backend)
        s = SeeDNorm.kernel.forward(one, one[0], beta, one[0], *rest)[2]
        assert abs(float(s) - math.tanh(sign * float(beta.abs()))) <= 5e-7 * abs(math.tanh(value))


def test_an_expanded_gradient_is_taken(place, make):
    inputs = make(place.device, (6, 16), 2)
    sums = []
    for dy in (torch.ones(()).expand(6, 16), torch.ones(6, 16)):
        y = SeeDNorm.kernel(inputs.x, *inputs.parameters, num_heads=2, backend=place.backend)
        sums.append(torch.autograd.grad(y, inputs.x, dy.to(place.device))[0])
    assert torch.equal(*sums)


def test_more_than_2_to_the_31_elements_are_addressed(place):
    """A row stride that puts the last row beyond 2^31; the memory between is never touched."""
    if place.device == "cuda" and torch.cuda.mem_get_info()[0] < 6 << 30:
        pytest.skip("needs 5 GiB of GPU memory")
    stride, dim = (1 << 30) + 16, 32
    memory = torch.empty(2 * stride + dim, dtype=torch.bfloat16, device=place.device)
    x = memory.as_strided((3, dim), (stride, 1))
    x.copy_(torch.randn(3, dim))
    beta, one = torch.full((dim,), 0.1).to(x.device), torch.ones(dim, device=x.device)
    settings = {"num_heads": 2, "backend": place.backend}
    far = SeeDNorm.kernel(x, one, beta, one, **settings)
    near = SeeDNorm.kernel(x.contiguous(), one, beta, one, **settings)
    assert torch.equal(far, near)
