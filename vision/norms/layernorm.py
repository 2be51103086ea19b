"""Layer normalization (Ba, Kiros, Hinton 2016, https://arxiv.org/abs/1607.06450)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.norms.base import Norm, cast, check_eps, fill
from vision.norms.registry import register_norm


@register_norm("layernorm")
class LayerNorm(Norm):
    """y = w·(x − mean)/sqrt(var + eps) + b, with mean and (biased) variance per token.

    Parameters are named as in `nn.LayerNorm`, so state dicts go both ways.

    Args:
        dim: Number of channels.
        eps: Added to the variance; 1e-6 as in timm's ViT; the default of `nn.LayerNorm` is 1e-5.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0.
        channels_first: Normalize axis 1 instead of the last.
    """

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-6,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.eps = check_eps(eps)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.dim,), cast(self.weight, x), cast(self.bias, x), self.eps)

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps}
