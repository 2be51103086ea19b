"""What the norm tests share: tolerances, each norm's formula in plain arithmetic, and the cases."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision.norms import Norm, create_norm, get_norm, list_norms
from vision.norms.fused import FusedNorm
from vision.norms.tokens import TokenLayout
from vision.registry import NORMS

DIM = 24

# largest error, relative to the largest value expected, per dtype of the input and output
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-10,
}


# The formulas in plain arithmetic, sharing no code with the norms: x, [..., DIM], parameters and
# buffers p are in float64, o holds the options. A formula is that of training; of a norm with
# running averages it is the one of the first step after the state p. A norm without a formula fails
# test_formulas.py. Longer ones are files of formulas/, named as the norm, that define
# `formula(x, p, o)`, and where they differ from the defaults `evaluated(x, p, o)`, the formula of
# evaluation, OPTIONS, and `moved(x, p, o)`, the buffers after a training step.
Formula = Callable[[Tensor, dict[str, Tensor], dict[str, Any]], Tensor]
FORMULAS: dict[str, Formula] = {
    "dyt": lambda x, p, o: affine(torch.tanh(p["alpha"] * x), p),
    "derf": lambda x, p, o: affine(torch.special.erf(p["alpha"] * x + p["shift"]), p),
    "dyisru": lambda x, p, o: affine(DIM**0.5 * x / (x * x + p["c"] ** 2) ** 0.5, p),
    "layernorm": lambda x, p, o: affine(over_rms(x, x.mean(-1, keepdim=True)), p),
    "rmsnorm": lambda x, p, o: affine(over_rms(x), p),
    "seednorm": lambda x, p, o: seednorm(x, p, o.get("num_heads", 1)),
}
# options besides `affine` that a norm is tested with too
OPTIONS: dict[str, dict[str, Any]] = {"seednorm": {"num_heads": 4}}
EVALUATED: dict[str, Formula] = {}  # of norms that have another formula in evaluation
MOVED: dict[str, Callable[..., dict[str, Tensor]]] = {}  # of norms with buffers
for file in sorted(Path(__file__).with_name("formulas").glob("[!_]*.py")):
    defined = runpy.run_path(str(file))
    FORMULAS[file.stem] = defined["formula"]
    OPTIONS |= {file.stem: defined["OPTIONS"]} if "OPTIONS" in defined else {}
    EVALUATED |= {file.stem: defined["evaluated"]} if "evaluated" in defined else {}
    MOVED |= {file.stem: defined["moved"]} if "moved" in defined else {}


def affine(y: Tensor, p: dict[str, Tensor]) -> Tensor:
    return p.get("weight", torch.tensor(1.0)) * y + p.get("bias", torch.tensor(0.0))


def over_rms(x: Tensor, center: Tensor | float = 0.0, eps: float = 1e-6) -> Tensor:
    """Squares are taken of x over its largest entry, so that they exist for any x."""
    top = max(float(x.detach().abs().max()), 1.0)
    small = (x - center) / top
    return small / ((small**2).mean(-1, keepdim=True) + eps / top / top) ** 0.5


def seednorm(x: Tensor, p: dict[str, Tensor], num_heads: int) -> Tensor:
    unit, parts = over_rms(x), []
    for start in range(0, DIM, DIM // num_heads):
        head = slice(start, start + DIM // num_heads)
        gate = torch.tanh(torch.einsum("...d,d->...", x[..., head], p["beta"][head]))
        gamma = p["gamma"][head] if "gamma" in p else 1.0
        parts.append((gate[..., None] * p["alpha"][head] + gamma) * unit[..., head])
    return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class Case:
    """One norm with its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    progress: float = 0.0  # of the run, for norms that follow it

    def __str__(self) -> str:
        shown = self.options | ({"progress": self.progress} if self.progress else {})
        return "-".join([self.name, *(f"{k}={v}" for k, v in shown.items())])

    def make(self, seed: int = 0, **options: Any) -> nn.Module:
        """The norm with parameters away from their start values."""
        torch.manual_seed(seed)  # matrices start at random
        norm = create_norm(self.name, DIM, **self.options, **options)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in norm.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.3 * noise.to(parameter.dtype))
        if self.progress:
            norm.follow(self.progress)
        if get_norm(self.name).needs_grid:  # the tests' images have three tokens
            norm.layout = TokenLayout((1, 2), prefix=1)
        return norm

    def formula(self, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        return FORMULAS[self.name](x, p, self.options)

    def evaluated(self, x: Tensor, p: dict[str, Tensor]) -> Tensor:
        return EVALUATED.get(self.name, FORMULAS[self.name])(x, p, self.options)

    def moved(self, x: Tensor, p: dict[str, Tensor]) -> dict[str, Tensor]:
        return MOVED[self.name](x, p, self.options) if self.name in MOVED else {}


CASES = [
    Case(name, {**options, **plain, **backend}, progress)
    for name in FORMULAS
    for options in ([{}, OPTIONS[name]] if name in OPTIONS else [{}])
    for plain in ({}, {"affine": False})
    for backend in ([{}, {"backend": "eager"}] if issubclass(get_norm(name), FusedNorm) else [{}])
    for progress in ([0.0] if get_norm(name).follow is Norm.follow else [0.0, 0.5])
]


@pytest.fixture
def without_formula() -> Callable[[], list[str]]:
    """The names of all norms that nobody gave a formula."""
    return lambda: [name for name in list_norms() if name not in FORMULAS]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(params=[c for c in CASES if get_norm(c.name).exact_gradient], ids=str)
def exact_case(request: pytest.FixtureRequest) -> Case:
    """A case of a norm whose backward pass is the derivative of its forward pass."""
    return request.param


@pytest.fixture(params=TOLERANCES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms that a test registers are gone after it; the built-in ones stay."""
    for name in list_norms():
        get_norm(name)
    monkeypatch.setattr(NORMS, "registered", dict(NORMS.registered))


class Close:
    """Asserts that a tensor is the expected one within its dtype's tolerance."""

    def __call__(self, actual: Tensor, expected: Tensor, *, scale: float = 0.0) -> None:
        """`scale`: what errors are relative to, where it is above the largest expected value."""
        info = torch.finfo(actual.dtype)
        assert actual.shape == expected.shape
        fits = expected.abs() <= info.max  # gradients that are sums of huge values may not
        assert actual[~fits].isinf().all()
        actual, expected = actual[fits], expected[fits]
        assert actual.isfinite().all(), "not finite"
        largest = max(float(expected.abs().max()) if fits.any() else 0.0, scale)
        steps = 4 * info.smallest_normal * info.eps  # denormal results are rounded to these
        error = float((actual.double() - expected.double()).abs().max()) if fits.any() else 0.0
        bound = TOLERANCES[actual.dtype] * largest + steps
        assert math.isfinite(largest) and error <= bound, f"error {error:.3g}, allowed {bound:.3g}"


@pytest.fixture
def close() -> Close:
    return Close()
