"""Dynamic inverse square root unit (DyISRU, 2025, https://arxiv.org/abs/2503.21708)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from vision.norms.base import fill, scale_and_shift
from vision.norms.fused import FusedNorm
from vision.norms.kernels.ops import Kernel
from vision.norms.registry import register_norm
from vision.norms.tokens import TokenMoments


@register_norm("dyisru")
class DyISRU(FusedNorm):
    """y = w·√D·x/sqrt(x² + C) + b, elementwise, with one learned scalar C > 0 per layer; D is dim.

    The paper derives it from RMSNorm. The formula is read in summaries of the paper, and no initial
    value is published. Ours is C = D, with which the slope at 0 is 1. C = c², and c is learned,
    so C cannot turn negative; this is ours too.

    Args:
        dim: Number of channels.
        c_init: Initial value of c, `c` `[1]`; not 0. Default: √dim.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0; `c` is always there.
            None of them decays.
        channels_first: Channels are on axis 1 instead of the last.
        backend: "triton" (GPU) or "compiled" (CPU) for the fused kernel, "eager" for the plain
            formula, "auto" to choose by device and dtype; VISION_NORM_BACKEND overrides it.

    Raises:
        ValueError: `c_init` is 0.
    """

    kernel: ClassVar[Kernel] = Kernel(
        "DyISRU",
        ("c", "weight", "bias"),
        {"weight": 1.0, "bias": 0.0},
        triton="vision.norms.kernels.dyisru_triton",
    )

    def __init__(
        self,
        dim: int,
        *,
        c_init: float | None = None,
        affine: bool = True,
        channels_first: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first, backend=backend)
        if c_init == 0:
            raise ValueError("c_init must not be 0: y would be the sign of x; try 2")
        self.c_init = math.sqrt(dim) if c_init is None else c_init
        self.c = self.vector(1, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.c, self.c_init), (self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        # hypot, because x² overflows long before x does
        y = math.sqrt(self.dim) * (x / torch.hypot(x, self.c.to(x.dtype)))
        return scale_and_shift(y, self.weight, self.bias)

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Fraction of the activations whose x/sqrt(x² + C) is beyond ±0.99."""
        return {"saturated": ((x / torch.hypot(x, self.c)).abs() > 0.99).float().mean()}

    def candidates(self, tokens: TokenMoments) -> list[dict[str, Any]]:
        return [{"c": 1 / slope} for slope in tokens.slopes]
