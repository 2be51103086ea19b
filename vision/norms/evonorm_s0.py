"""EvoNorm-S0 (Liu et al. 2020, Evolving Normalization-Activation Layers, https://arxiv.org/abs/2004.02967)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.groupnorm import choose_groups
from vision.norms.registry import register_norm
from vision.norms.tokens import as_tokens


@register_norm("evonorm_s0")
class EvoNormS0(Norm):
    """y = w·x·sigmoid(v·x)/std + b: a norm that contains its activation.

    std = sqrt(var + eps), with the (biased) variance over the channels of a group and all tokens
    of the image; a masked encoder has only the kept ones. Where an image is one token, as behind
    pooling, a group of one channel has the variance 0. It takes the place of an activation with
    the norm next to it. timm's `EvoNorm2dS0` is the same on maps; parameters have its names.

    Args:
        dim: Number of channels.
        num_groups: Must divide `dim`; default: its largest divisor up to 32, timm's number.
        eps: Added to the variance.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0. `v` `[dim]`, from 1, is
            always there, as part of the activation. None of them decays.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: `num_groups` does not divide `dim`, or `eps` is not a number above 0.
    """

    mixes_tokens = True
    contains_activation = True

    def __init__(
        self,
        dim: int,
        *,
        num_groups: int | None = None,
        eps: float = 1e-5,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.num_groups = choose_groups(dim, num_groups, 32)
        self.eps = check_eps(eps)
        self.v = self.vector(dim, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.v, 1.0), (self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        activated = as_tokens(x * torch.sigmoid(self.v.to(x.dtype) * x))
        grouped = as_tokens(x).unflatten(-1, (self.num_groups, -1))  # [B, L, G, D/G]
        centered = grouped - grouped.mean((1, 3), keepdim=True)
        std = (centered.square().mean((1, 3), keepdim=True) + self.eps).sqrt()
        y = activated.unflatten(-1, (self.num_groups, -1)) / std
        return scale_and_shift(y.reshape(x.shape), self.weight, self.bias)

    def shown_options(self) -> dict[str, Any]:
        return {"num_groups": self.num_groups, "eps": self.eps}
