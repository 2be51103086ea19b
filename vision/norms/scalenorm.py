"""ScaleNorm (Nguyen, Salazar 2019, Transformers without Tears, https://arxiv.org/abs/1910.05895)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill
from vision.norms.registry import register_norm


@register_norm("scalenorm")
class ScaleNorm(Norm):
    """y = g·x/max(‖x‖, eps): every token gets the length g, one learned scalar per layer.

    g starts at √dim, so the norm starts as RMSNorm. It does not decay.

    Args:
        dim: Number of channels.
        eps: Smallest length that a token is divided by. The default is ours: with it the slope
            at 0, √dim/eps, fits float16 up to dim 4096.
        affine: Learn g, `scale` `[1]`; otherwise it stays √dim.
        channels_first: Normalize axis 1 instead of the last.

    Raises:
        ValueError: `eps` is not a number above 0.
    """

    scale_name = "scale"

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-3,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.eps = check_eps(eps)
        self.scale = self.vector(1, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.scale, math.sqrt(self.dim))])

    def normalize(self, x: Tensor) -> Tensor:
        scale = math.sqrt(self.dim) if self.scale is None else self.scale.to(x.dtype)
        return scale * F.normalize(x, dim=-1, eps=self.eps)

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps}
