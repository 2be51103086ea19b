"""What the kernel tests share: where a kernel can run here, tolerances, and the comparison."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from vision.norms.seednorm import SeeDNorm, seednorm

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# largest error allowed, relative to the sum of the sizes of the terms that make up a result (which
# is its own size where nothing cancels), by the dtype that the result is rounded to
TOLERANCES = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    # half a step of the dtype and the float32 error before it; Triton's interpreter cuts bf16 off
    # where everything else rounds, which is a whole step
    torch.bfloat16: 2**-7 if INTERPRETED else 2**-8 + 4e-6,
    torch.float16: 2**-11 + 4e-6,
}
EPS = 1e-6


@dataclass(frozen=True)
class Place:
    """A kernel and the device it runs on."""

    backend: str
    device: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.device}"


PLACES: list[Any] = [Place("triton", "cpu")] if INTERPRETED else [Place("compiled", "cpu")]
if torch.cuda.is_available() and not INTERPRETED:
    PLACES.append(pytest.param(Place("triton", "cuda"), marks=pytest.mark.gpu))


@pytest.fixture(params=PLACES, ids=str, scope="session")
def place(request: pytest.FixtureRequest) -> Place:
    return request.param


@dataclass
class Inputs:
    """Arguments of one call; everything but `x` and `dy` may lack (gamma) or differ in dtype."""

    x: Tensor
    dy: Tensor
    parameters: list[Tensor | None]
    num_heads: int


def make_inputs(
    device: str,
    shape: tuple[int, ...],
    num_heads: int,
    dtype: torch.dtype = torch.float32,
    parameter_dtype: torch.dtype | None = None,
    affine: bool = True,
    layout: str = "contiguous",
    seed: int = 0,
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    def lay_out(t: Tensor) -> Tensor:
        """The same values in other strides."""
        t = t.to(device, dtype)
        if layout == "rows apart":
            wide = t.new_empty(*t.shape[:-1], t.shape[-1] + 3)
            wide[..., :-3] = t
            return wide[..., :-3]
        if layout == "channels first":
            return t.movedim(-1, 0).contiguous().movedim(0, -1)
        if layout == "off by one":  # no 128-bit alignment
            flat = t.new_empty(t.numel() + 1)
            flat[1:] = t.flatten()
            return flat[1:].view(t.shape)
        assert layout == "contiguous"
        return t

    dim = shape[-1]
    width = dim // num_heads
    alpha, beta, gamma = draw(dim), draw(dim) * 0.5 / width**0.5, 1 + 0.3 * draw(dim)
    kind = parameter_dtype or torch.promote_types(dtype, torch.float32)
    parameters = [
        None if p is None else p.to(device, kind).requires_grad_()
        for p in (alpha, beta, gamma if affine else None)
    ]
    x, dy = lay_out(draw(*shape)), lay_out(draw(*shape))
    return Inputs(x.requires_grad_(), dy, parameters, num_heads)


def call(inputs: Inputs, backend: str) -> tuple[Tensor, list[Tensor | None]]:
    """Output, and gradients of x, alpha, beta, gamma."""
    settings = {"num_heads": inputs.num_heads, "eps": EPS, "backend": backend}
    y = SeeDNorm.kernel(inputs.x, *inputs.parameters, **settings)
    given = [inputs.x, *(p for p in inputs.parameters if p is not None)]
    grads = list(torch.autograd.grad(y, given, inputs.dy))
    return y.detach(), grads + [None] * (4 - len(grads))


def check(inputs: Inputs, backend: str) -> None:
    """Compares forward and all gradients with the plain formula in float64."""
    y, grads = call(inputs, backend)
    x, alpha, beta, gamma = (
        None if t is None else t.detach().double().requires_grad_()
        for t in (inputs.x, *inputs.parameters)
    )
    plain = seednorm(x, alpha, beta, gamma, inputs.num_heads, EPS)
    given = [t for t in (x, alpha, beta, gamma) if t is not None]
    wanted = [plain, *torch.autograd.grad(plain, given, inputs.dy.double())]
    sizes = _sizes(inputs)
    leaves = [inputs.x, inputs.x, *(p for p in inputs.parameters if p is not None)]
    got = [y, *(g for g in grads if g is not None)]
    for name, actual, expected, leaf in zip(sizes, got, wanted, leaves, strict=False):
        assert actual.shape == expected.shape and actual.dtype == leaf.dtype, name
        error = (actual.double() - expected).detach().abs()
        # below the smallest normal number a dtype has no relative precision
        bound = TOLERANCES[actual.dtype] * sizes[name] + 2 * torch.finfo(actual.dtype).tiny
        assert bool((error <= bound).all()), f"{name}: {float((error / bound).max()):.3g} x allowed"


@torch.no_grad()
def _sizes(inputs: Inputs) -> dict[str, Tensor]:
    """What errors are judged against: every sum with the absolute values of its terms."""
    x, g = inputs.x.double(), inputs.dy.double()
    alpha, beta = (p.double() for p in inputs.parameters[:2])
    gamma = inputs.parameters[2]
    gamma = torch.ones_like(alpha) if gamma is None else gamma.double()
    heads = (inputs.num_heads, -1)

    def per_head(t: Tensor) -> Tensor:
        """Sums over heads, as wide as before."""
        total = t.unflatten(-1, heads).sum(-1, keepdim=True)
        return total.expand_as(t.unflatten(-1, heads)).flatten(-2)

    r = (x.square().mean(-1, keepdim=True) + EPS).rsqrt()
    u, gu = (x * r).abs(), (g * x * r).abs()
    argument = per_head((x * beta).abs()) if x.numel() else x
    c = alpha.abs() + gamma.abs()
    slope = per_head(gu * alpha.abs()) if x.numel() else x
    # tanh passes on the error of its argument, by a factor of at most 1
    rough = 1 + argument
    dx = r * ((g.abs() * c) + u * (gu * c).mean(-1, keepdim=True)) + slope * beta.abs()
    rows = list(range(x.ndim - 1))
    total = {"alpha": gu * rough, "beta": slope * x.abs() * rough, "gamma": gu}
    sums = {k: v.sum(rows) for k, v in total.items()}
    return {"y": u * c * rough, "x": dx * rough} | sums


@pytest.fixture(scope="session")
def make() -> Callable[..., Inputs]:
    return make_inputs


@pytest.fixture(scope="session")
def run() -> Callable[..., tuple[Tensor, list[Tensor | None]]]:
    return call


@pytest.fixture(scope="session")
def agree() -> Callable[[Inputs, str], None]:
    return check
