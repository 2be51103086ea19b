"""What a norm does to inputs of another size: one norm, one input, 0.01 to 100 times as large."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vision.norms import Norm

FACTORS = tuple(float(f) for f in np.logspace(-2, 2, 17).round(12))
_STEP = 1e-5  # of central differences, relative to the input's size


@dataclass(frozen=True)
class Anatomy:
    """One norm under `FACTORS`; each list has a number per factor.

    Attributes:
        name: What the norm is called.
        parameters: How many scalars it learns.
        input_size: Root mean square (RMS) of the input that the factors multiply.
        output_size: RMS of the output.
        jacobian: RMS singular value of the Jacobian, by which a small random change of the input
            grows: 1 for the identity.
        norm_kept: Relative change of the output per relative change of the input's size: 0 where
            the output forgets it, 1 where the output is proportional to the input.
        saturated: Fraction of values where the norm's bounded function is within 1 % of its bound
            (`Norm.diagnose`); None for a norm without one.
    """

    name: str
    parameters: int
    input_size: float
    output_size: list[float]
    jacobian: list[float]
    norm_kept: list[float]
    saturated: list[float] | None


@torch.no_grad()
def measure(name: str, norm: nn.Module, x: Tensor, generator: torch.Generator) -> Anatomy:
    """Measure `norm` as it is (parameters, buffers, mode) on `x` times each factor, in float64.

    Derivatives are central differences of the forward pass, so that a norm whose backward pass is
    an approximation is seen as what it computes. `generator` draws the direction of the change.
    """
    norm = copy.deepcopy(norm).double().cpu()
    x = x.detach().double().cpu()
    size = _rms(x)
    signs = torch.randint(2, x.shape, generator=generator).double() * 2 - 1
    rows = [_row(norm, x * factor, signs * (size * factor)) for factor in FACTORS]
    columns = {key: [row[key] for row in rows if key in row] for key in rows[0]}
    return Anatomy(
        name,
        sum(p.numel() for p in norm.parameters()),
        size,
        columns["output_size"],
        columns["jacobian"],
        columns["norm_kept"],
        columns.get("saturated"),
    )


def _row(norm: nn.Module, x: Tensor, direction: Tensor) -> dict[str, float]:
    """The metrics for one input; `direction` has entries of plus and minus the input's RMS."""
    forward = norm.forward  # without hooks
    size = _rms(forward(x))
    row = {
        "output_size": size,
        # for random signs v, the mean of |Jv|² is the sum of the squared singular values
        "jacobian": _rms(_derivative(norm, x, direction)) / _rms(direction),
        "norm_kept": _rms(_derivative(norm, x, x)) / size if size > 0 else float("nan"),
    }
    found = norm.diagnose(x) if isinstance(norm, Norm) else {}
    bounded = [float(value) for key, value in found.items() if key.endswith("saturated")]
    return row | ({"saturated": bounded[0]} if bounded else {})


def _derivative(norm: nn.Module, x: Tensor, direction: Tensor) -> Tensor:
    """J·direction, for a direction of the input's size."""
    step = _STEP * direction
    return (norm.forward(x + step) - norm.forward(x - step)) / (2 * _STEP)


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())
