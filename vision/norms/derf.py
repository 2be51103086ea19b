"""Dynamic erf (Derf, 2025, https://arxiv.org/abs/2512.10938, equation 10)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vision.norms.base import fill, scale_and_shift
from vision.norms.fused import FusedNorm
from vision.norms.kernels.ops import Kernel
from vision.norms.registry import register_norm
from vision.norms.tokens import TokenMoments


@register_norm("derf")
class Derf(FusedNorm):
    """y = w·erf(a·x + s) + b, elementwise, with two learned scalars a and s per layer.

    The formula is the paper's; initial values are those of the authors' code.

    Args:
        dim: Number of channels.
        alpha_init: Initial value of a, `alpha` `[1]`.
        shift_init: Initial value of s, `shift` `[1]`.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0; the scalars are always
            there.
        channels_first: Channels are on axis 1 instead of the last.
        backend: "triton" (GPU) or "compiled" (CPU) for the fused kernel, "eager" for the plain
            formula, "auto" to choose by device and dtype; VISION_NORM_BACKEND overrides it.
    """

    kernel: ClassVar[Kernel] = Kernel(
        "Derf",
        ("alpha", "shift", "weight", "bias"),
        {"weight": 1.0, "bias": 0.0},
        triton="vision.norms.kernels.derf_triton",
    )

    def __init__(
        self,
        dim: int,
        *,
        alpha_init: float = 0.5,
        shift_init: float = 0.0,
        affine: bool = True,
        channels_first: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first, backend=backend)
        self.alpha_init = alpha_init
        self.shift_init = shift_init
        self.alpha = self.vector(1, device, dtype)
        self.shift = self.vector(1, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.alpha, self.alpha_init), (self.shift, self.shift_init)])
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    @staticmethod
    def bounded(z: Tensor) -> Tensor:
        """The function that saturates at ±1."""
        return torch.erf(z)

    def normalize(self, x: Tensor) -> Tensor:
        y = self.bounded(self.alpha.to(x.dtype) * x + self.shift.to(x.dtype))
        return scale_and_shift(y, self.weight, self.bias)

    def candidates(self, tokens: TokenMoments) -> list[dict[str, Any]]:
        mean = float(tokens.mean.mean())
        return [{"alpha": a, "shift": s} for a in tokens.slopes for s in (0.0, -a * mean)]

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Fraction of the activations whose erf (or what takes its place) is beyond ±0.99."""
        y = self.bounded(self.alpha * x + self.shift)
        return {"saturated": (y.abs() > 0.99).float().mean()}
