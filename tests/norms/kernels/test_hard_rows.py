"""Rows whose numbers a kernel could lose: a large mean, one value, a saturated tanh of a long row.

For the C++ kernels, on a GPU for Triton's, and under Triton's interpreter from test_interpreter.py.
Errors are judged against the sizes of the terms of a result.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vision.norms import create_norm
from vision.norms.seednorm import SeeDNorm, seednorm

EPS = 1e-6
# of a result, by the dtype that it is rounded to; the interpreter cuts bfloat16 off
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-11 + 4e-6}


def randn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def agree(got: list[Tensor], wanted: list[Tensor], sizes: list[Tensor]) -> None:
    for position, (a, b, size) in enumerate(zip(got, wanted, sizes, strict=True)):
        error = (a.double() - b).detach().abs()
        # below the smallest normal number a dtype has no relative precision
        bound = TOLERANCES[a.dtype] * size.detach() + 2 * torch.finfo(a.dtype).tiny
        assert a.shape == b.shape and bool((error <= bound).all()), (position, error.max())


def sizes_of(x: Tensor, g: Tensor, w: Tensor, centre: Tensor) -> list[Tensor]:
    """Sizes of y, dx and dw of y = w (x - centre)/RMS(x - centre), where the kernel has rounded
    the centre to float32 (its tolerance is a number of such steps, one half of which that is)."""
    r = ((x - centre).square().mean(-1, keepdim=True) + EPS).rsqrt()
    u = ((x - centre).abs() + 2**-24 / TOLERANCES[torch.float32] * centre.abs()) * r
    gw = (g * w).abs()
    mean = gw.mean(-1, keepdim=True)
    dx = r * (gw + mean + u * (gw * u).mean(-1, keepdim=True))
    return [u * w.abs(), dx, (g.abs() * u).sum(0)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dim", [1, 2, 7, 768, 9000])
def test_layernorm_of_rows_of_a_large_mean_and_of_one_value(place, dim, dtype):
    one = torch.tensor([[1000.3], [-0.1], [3e4]]).expand(3, dim)
    for given in (randn(3, dim, seed=1) + 1000, one):
        x = given.to(place.device, dtype).requires_grad_()
        g = randn(3, dim, seed=2).to(place.device, dtype)
        norm = create_norm("layernorm", dim, eps=EPS, backend=place.backend, device=place.device)
        with torch.no_grad():
            for seed, parameter in enumerate(norm.parameters()):
                parameter += 0.3 * randn(dim, seed=3 + seed).to(parameter)
        y = norm(x)
        assert "FusedNorm" in y.grad_fn.name() or "layernorm" in type(y.grad_fn).__name__
        got = [y, *torch.autograd.grad(y, [x, *norm.parameters()], g)]
        leaf, g = x.detach().double().requires_grad_(), g.double()
        w, b = (p.detach().double().requires_grad_() for p in norm.parameters())
        mean = leaf.mean(-1, keepdim=True)
        plain = w * (leaf - mean) / ((leaf - mean).square().mean(-1, keepdim=True) + EPS).sqrt() + b
        wanted = [plain, *torch.autograd.grad(plain, [leaf, w, b], g)]
        y_size, dx_size, dw_size = sizes_of(leaf, g, w, mean)
        agree(got, wanted, [y_size + b.abs(), dx_size, dw_size, g.abs().sum(0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("dim", "num_heads"), [(8200, 1), (9000, 3), (16384, 4)])
def test_long_rows_of_a_saturated_seednorm(place, dim, num_heads, dtype):
    """Every tanh is 1 or -1, so that y = (γ ± α) x/RMS(x), and β and x through it get nothing."""
    sign = randn(dim, seed=1).sign()
    beta = 40 * num_heads / dim * sign  # x·β is 20 or -20, give or take 1
    x = randn(3, dim, seed=2) + torch.tensor([[0.5], [-0.5], [0.5]]) * sign
    parameters = [randn(dim, seed=3), beta, 1 + 0.3 * randn(dim, seed=4)]
    leaves = [t.to(place.device, torch.float32).requires_grad_() for t in parameters]
    x = x.to(place.device, dtype).requires_grad_()
    g = randn(3, dim, seed=5).to(place.device, dtype)
    y = SeeDNorm.kernel(x, *leaves, num_heads=num_heads, eps=EPS, backend=place.backend)
    got = [y, *torch.autograd.grad(y, [x, *leaves], g)]
    assert not got[3].any()  # of beta

    exact = [t.detach().double().requires_grad_() for t in (x, *leaves)]
    plain = seednorm(*exact, num_heads, EPS)
    wanted = [plain, *torch.autograd.grad(plain, exact, g.double())]
    assert float(wanted[3].abs().max()) < 1e-9
    signs = torch.tensor([[1.0], [-1.0], [1.0]], device=place.device)
    scale = exact[3] + signs * exact[1]
    y_size, dx_size, _ = sizes_of(exact[0], g.double(), scale, torch.zeros_like(signs))
    sums = (g.double() * wanted[0] / scale).abs().sum(0)
    agree(got, wanted, [y_size, dx_size, sums, torch.full_like(sums, 1e-3), sums])
