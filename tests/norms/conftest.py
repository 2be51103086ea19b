"""What the norm tests share: the tolerance table, the cases, and the formulas written again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vision.norms import create_norm, get_norm, list_norms
from vision.registry import NORMS

DIM = 24

# largest error, relative to the largest value expected, per dtype of the input and output
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-10,
}


@dataclass(frozen=True)
class Case:
    """One norm with its options, and the same formula in plain arithmetic."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])

    def make(self, seed: int = 0, **options: Any) -> nn.Module:
        """The norm with parameters away from their start values."""
        norm = create_norm(self.name, DIM, **self.options, **options)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in norm.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.3 * noise.to(parameter.dtype))
        return norm

    def formula(self, x: Tensor, p: dict[str, Tensor], eps: float = 1e-6) -> Tensor:
        """`x` `[..., DIM]` and parameters in float64. Squares are taken of x over its largest
        entry, so that they exist for any x."""
        w, b = p.get("weight", torch.tensor(1.0)), p.get("bias", torch.tensor(0.0))
        if self.name == "dyt":
            return w * torch.tanh(p["alpha"] * x) + b
        if self.name == "derf":
            return w * torch.special.erf(p["alpha"] * x + p["shift"]) + b
        if self.name == "dyisru":
            return w * x / (x * x + p["c"] * p["c"]) ** 0.5 + b
        top = max(float(x.detach().abs().max()), 1.0)
        small, eps = x / top, eps / top / top
        if self.name == "layernorm":
            centred = small - small.mean(-1, keepdim=True)
            return w * centred / ((centred**2).mean(-1, keepdim=True) + eps) ** 0.5 + b
        unit = small / ((small**2).mean(-1, keepdim=True) + eps) ** 0.5
        if self.name == "rmsnorm":
            return w * unit
        assert self.name == "seednorm"
        width = DIM // self.options.get("num_heads", 1)
        parts = []
        for start in range(0, DIM, width):
            head = slice(start, start + width)
            gate = torch.tanh(torch.einsum("...d,d->...", x[..., head], p["beta"][head]))
            gamma = p["gamma"][head] if "gamma" in p else 1.0
            parts.append((gate[..., None] * p["alpha"][head] + gamma) * unit[..., head])
        return torch.cat(parts, dim=-1)


CASES = [
    Case(name, {**heads, **affine})
    for name in ("layernorm", "rmsnorm", "dyt", "derf", "dyisru", "seednorm")
    for heads in ([{}, {"num_heads": 4}] if name == "seednorm" else [{}])
    for affine in ({}, {"affine": False})
]


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
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
        """`scale`: size on which errors are judged where it is above the largest expected value."""
        info = torch.finfo(actual.dtype)
        assert actual.shape == expected.shape
        assert actual.isfinite().all(), "not finite"
        largest = max(float(expected.abs().max()), scale)
        steps = 4 * info.smallest_normal * info.eps  # denormal results are rounded to these
        error = float((actual.double() - expected.double()).abs().max())
        bound = TOLERANCES[actual.dtype] * largest + steps
        assert math.isfinite(largest) and error <= bound, f"error {error:.3g}, allowed {bound:.3g}"


@pytest.fixture
def close() -> Close:
    return Close()
