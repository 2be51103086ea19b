"""Norms on the Triton skeleton against their plain formulas; test_formula.py says more of SeeDNorm.

On a GPU, or under Triton's interpreter, from test_interpreter.py; the C++ kernels otherwise.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vision.norms import create_norm
from vision.norms.kernels.triton_config import backward_config

# largest error, relative to the largest value expected
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2**-7,  # the interpreter cuts off where everything else rounds
    torch.float16: 2**-10,
}
pytestmark = pytest.mark.parametrize(
    "name", ["layernorm", "rmsnorm", "dyt", "derf", "isru", "dyisru", "seednorm"]
)


def randn(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def results(
    name: str, backend: str, x: Tensor, g: Tensor, affine: bool, modulated: bool = False
) -> list[Tensor]:
    """Output, and gradients of x, of scale and shift, and of the parameters."""
    kind = torch.promote_types(x.dtype, torch.float32)
    options = {"affine": affine, "device": x.device, "dtype": kind}
    if name == "seednorm":
        options["num_heads"] = 16 if x.shape[-1] % 16 == 0 else 1
    norm = create_norm(name, x.shape[-1], backend=backend, **options)
    with torch.no_grad():
        for position, (key, parameter) in enumerate(norm.named_parameters()):
            size, seed = 0.3, 3
            if name == "seednorm":  # α and γ that differ, and dot products of size 1
                size, seed = x.shape[-1] ** -0.5 if key == "beta" else 0.3, 10 + position
            parameter.add_(size * randn(*parameter.shape, seed=seed).to(parameter))
    x = x.detach().requires_grad_()
    if not modulated:
        y, leaves = norm(x), [x]
    else:
        size = (len(x), 1, x.shape[-1])
        both = torch.cat([randn(*size, seed=s) for s in (5, 6)], -1).to(x)
        extra = [t.detach().requires_grad_() for t in both.chunk(2, -1)]  # rows of another stride
        y, leaves = norm.modulated(x, *extra), [x, *extra]
        step = y.grad_fn  # of the norm itself, not of an addition behind it
        assert backend == "eager" or "FusedNorm" in step.name() or name in type(step).__name__
    return [y.detach(), *torch.autograd.grad(y, [*leaves, *norm.parameters()], g)]


def check(place, name: str, x: Tensor, g: Tensor, affine: bool = True, modulated=False) -> None:
    x, g = x.to(place.device), g.to(place.device)
    got = results(name, place.backend, x, g, affine, modulated)
    wanted = results(name, "eager", x.double(), g.double(), affine, modulated)
    # a scalar's gradient is a sum in which large terms may cancel
    largest = max([float(t.abs().max()) for t in wanted[2:] if t.numel()], default=0.0)
    for position, (a, b) in enumerate(zip(got, wanted, strict=True)):
        scale = largest if position > 1 else float(b.abs().max()) if b.numel() else 0.0
        if position == 1:
            scale = max(scale, cancelling(name, x, g))
        tolerance = TOLERANCES[x.dtype if modulated else a.dtype] * (3 if modulated else 1)
        error = float((a.double() - b).abs().max()) if b.numel() else 0.0
        assert a.shape == b.shape and error <= tolerance * scale, (position, error, scale)


def cancelling(name: str, x: Tensor, g: Tensor) -> float:
    """Size of the terms that cancel in dx where a row has one or two channels."""
    if name not in ("layernorm", "rmsnorm", "seednorm") or not x.numel():
        return 0.0
    x = x.double()
    x = x - x.mean(-1, keepdim=True) if name == "layernorm" else x
    return float((g.double() / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()).abs().max())


def test_forward_and_gradients_follow_the_formula(place, name):
    for dtype in TOLERANCES:
        check(place, name, randn(17, 24).to(dtype), randn(17, 24, seed=2).to(dtype))
    for shape in ((5, 1), (4, 2), (1, 7), (3, 5, 31), (0, 40), (150, 48), (2, 1153)):
        for affine in (True, False):
            check(place, name, randn(*shape).float(), randn(*shape, seed=2).float(), affine)
    x, g = randn(6, 36, 7).float().mT, randn(7, 6, 36, seed=2).float().transpose(0, 1)
    check(place, name, x, g)


def test_rows_too_long_for_sums_in_registers(place, name):
    assert not backward_config(9000, 1, torch.device("cpu")).in_registers
    check(place, name, randn(9, 9000).float(), randn(9, 9000, seed=2).float())


def test_sizes_that_overflow_in_squares(place, name):
    x = torch.tensor([[1e-30, -1e-3, 2.0, -1e3]]).repeat(2, 2)
    check(place, name, x if name in ("layernorm", "rmsnorm") else x * 1e15, torch.ones(2, 8))


def test_with_scale_and_shift(place, name):
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        shape = (3, 5, 24)
        check(place, name, randn(*shape).to(dtype), randn(*shape, seed=2).to(dtype), modulated=True)
    # samples of several programs, programs of one sample, long rows, and none at all
    for shape in ((2, 70, 48), (6, 3, 7), (2, 3, 9000), (0, 3, 24), (2, 0, 24)):
        x, g = randn(*shape).float(), randn(*shape, seed=2).float()
        check(place, name, x, g, affine=shape[1] != 3, modulated=True)


def test_the_kernel_computes_and_gives_the_same_bits_twice(place, name):
    x, g = randn(150, 48).float().to(place.device), randn(150, 48, seed=2).float().to(place.device)
    for modulated in (False, True):
        given = [t.view(3, 50, 48) if modulated else t for t in (x, g)]
        first, second = (results(name, place.backend, *given, True, modulated) for _ in range(2))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    fused, plain = (
        create_norm(name, 48, backend=b, device=place.device)(x.detach().requires_grad_())
        for b in (place.backend, "eager")
    )
    assert fused.grad_fn.name() != plain.grad_fn.name()
