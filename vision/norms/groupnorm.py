"""Group normalization (Wu, He 2018, https://arxiv.org/abs/1803.08494)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.tokens import as_tokens


def choose_groups(dim: int, num_groups: int | None, most: int, option: str = "num_groups") -> int:
    """`num_groups`, called `option`, or the largest divisor of `dim` up to `most` where it is None.

    Raises:
        ValueError: it does not divide `dim`.
    """
    divisors = [n for n in range(1, min(dim, 64) + 1) if dim % n == 0]
    if num_groups is None:
        return max(n for n in divisors if n <= most)
    if not isinstance(num_groups, int) or num_groups < 1 or dim % num_groups:
        raise ValueError(f"{option}={num_groups} does not divide dim={dim}; try {divisors}")
    return num_groups


@register_norm("groupnorm")
class GroupNorm(Norm):
    """y = w·(x − mean)/sqrt(var + eps) + b, per image and group of neighbouring channels.

    Mean and (biased) variance run over the channels of the group and all tokens of the image; a
    masked encoder has only the kept ones. Where an image is one token, as behind pooling, a group
    of one channel gives b. Parameters are named as in `nn.GroupNorm`.

    Args:
        dim: Number of channels.
        num_groups: Must divide `dim`; default: its largest divisor up to 8, which is ours, as a
            norm does not know the number of attention heads that Dynamic Token Normalization
            (https://arxiv.org/abs/2112.02624) takes for it.
        eps: Added to the variance; 1e-5 as in torch.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0; neither decays.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: `num_groups` does not divide `dim`, or `eps` is not a number above 0.
    """

    mixes_tokens = True

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
        self.num_groups = choose_groups(dim, num_groups, 8)
        self.eps = check_eps(eps)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        grouped = as_tokens(x).unflatten(-1, (self.num_groups, -1))  # [B, L, G, D/G]
        centered = grouped - grouped.mean((1, 3), keepdim=True)
        variance = centered.square().mean((1, 3), keepdim=True)
        # a division, not F.group_norm, whose gradient contains the cube of 1/std: it underflows
        y = centered / (variance + self.eps).sqrt()
        return scale_and_shift(y.reshape(x.shape), self.weight, self.bias)

    def shown_options(self) -> dict[str, Any]:
        return {"num_groups": self.num_groups, "eps": self.eps}
