"""Dynamic Tanh (Zhu et al. 2025, Transformers without Normalization, https://arxiv.org/abs/2503.10622)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vision.norms.base import fill, scale_and_shift
from vision.norms.fused import FusedNorm
from vision.norms.kernels.ops import Kernel
from vision.norms.registry import register_norm
from vision.norms.tokens import TokenMoments


@register_norm("dyt")
class DyT(FusedNorm):
    """y = w·tanh(a·x) + b, elementwise, with one learned scalar a per layer.

    Initial values are those of the authors' code.

    Args:
        dim: Number of channels.
        alpha_init: Initial value of a, `alpha` `[1]`.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0; `alpha` is always there.
        channels_first: Channels are on axis 1 instead of the last.
        backend: "triton" (GPU) or "compiled" (CPU) for the fused kernel, "eager" for the plain
            formula, "auto" to choose by device and dtype; VISION_NORM_BACKEND overrides it.
    """

    kernel: ClassVar[Kernel] = Kernel(
        "DyT",
        ("alpha", "weight", "bias"),
        {"weight": 1.0, "bias": 0.0},
        triton="vision.norms.kernels.dyt_triton",
    )

    def __init__(
        self,
        dim: int,
        *,
        alpha_init: float = 0.5,
        affine: bool = True,
        channels_first: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first, backend=backend)
        self.alpha_init = alpha_init
        self.alpha = self.vector(1, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.alpha, self.alpha_init), (self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.alpha.to(x.dtype) * x)
        return scale_and_shift(y, self.weight, self.bias)

    def candidates(self, tokens: TokenMoments) -> list[dict[str, Any]]:
        return [{"alpha": slope} for slope in tokens.slopes]

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Fraction of the activations whose tanh is beyond ±0.99."""
        return {"saturated": (torch.tanh(self.alpha * x).abs() > 0.99).float().mean()}
