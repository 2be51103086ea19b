"""Dynamic normalization, batch and channel-wise (DN-B, 2021, https://arxiv.org/abs/2101.06073)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import fill, linear
from vision.norms.batchnorm import BatchNorm
from vision.norms.registry import register_norm
from vision.norms.tokens import as_tokens


@register_norm("dn_b")
class DNB(BatchNorm):
    """y = (w + U·a)·BN(x) + b + V·a: batch normalization with a scale and shift for each image.

    a = tanh(S·(mean, std) + c), with mean and (biased) standard deviation of each channel over the
    tokens of the image (a masked encoder has only the kept ones). From the paper's abstract: a
    module makes scale and shift per sample and channel from these two. The layout of the module is
    ours, and so is that U and V start at 0, so that the norm starts as batch normalization. Where
    an image is one token, as behind pooling, std = sqrt(eps).

    Args:
        dim: Number of channels.
        hidden_dim: Size of a; default: dim/16, at least 1.
        affine: Learn w, `weight` `[dim]`, from 1, and b, `bias` `[dim]`, from 0. S, `hidden`
            `[hidden_dim, 2·dim]`, random, c, `hidden_bias` `[hidden_dim]`, from 0, U, `to_scale`,
            and V, `to_shift`, `[dim, hidden_dim]`, are always there. The matrices S, U and V decay,
            as those of linear layers do.
        **options: Of `BatchNorm`; `eps` is added to the images' variances too.

    Raises:
        ValueError: an option is out of its range.
    """

    decayed = frozenset({"hidden", "to_scale", "to_shift"})
    mixes_tokens = True

    def __init__(
        self,
        dim: int,
        *,
        hidden_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dim, device=device, dtype=dtype, **options)
        size = max(dim // 16, 1) if hidden_dim is None else hidden_dim
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"hidden_dim must be an integer of at least 1, got {hidden_dim!r}")
        self.hidden_dim = size
        self.hidden = self.matrix(size, 2 * dim, device, dtype)
        self.hidden_bias = self.vector(size, device, dtype)
        self.to_scale = self.matrix(dim, size, device, dtype)
        self.to_shift = self.matrix(dim, size, device, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "to_shift"):  # not yet when BatchNorm is made
            nn.init.kaiming_uniform_(self.hidden, a=math.sqrt(5))  # as torch's linear layers
            fill([(self.hidden_bias, 0.0), (self.to_scale, 0.0), (self.to_shift, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        tokens = as_tokens(x)
        variance, mean = torch.var_mean(tokens, 1, correction=0, keepdim=True)
        seen = torch.cat([mean, (variance + self.eps).sqrt()], -1)  # [B, 1, 2D]
        hidden = torch.tanh(linear(seen, self.hidden, self.hidden_bias))
        scale = linear(hidden, self.to_scale, self.weight) + (0 if self.affine else 1)
        shift = linear(hidden, self.to_shift, self.bias)
        # of an alias: terms of BN's gradient cancel, and must before others are added
        return (scale * self.standardize(tokens.view_as(tokens)) + shift).reshape(x.shape)

    def shown_options(self) -> dict[str, Any]:
        return super().shown_options() | {"hidden_dim": self.hidden_dim}
