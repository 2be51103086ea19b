"""Batch layer normalization.

Batch Layer Normalization, A new normalization layer for CNNs and RNN, 2022,
https://arxiv.org/abs/2209.08898
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.statistics import (
    batch_moments,
    check_fraction,
    move_average,
    sum_over_processes,
)


@register_norm("batch_layernorm")
class BatchLayerNorm(Norm):
    """y = w·[(1/B − δ)·x_feature + (1 − 1/B − δ)·x_batch]/√D + b, with δ = 1e-4.

    x_feature is x normalized per token, x_batch per channel, and B is the number of images in the
    batch of all processes (of a micro-batch, where gradients are accumulated): the larger the
    batch, the more it counts. The output is about √D times smaller than that of other norms. The
    formula is that of the authors' code (A2Amir/Batch-Layer-Normalization).

    Ours, so that the number of tokens may vary: x_batch has one mean and variance per channel,
    over images and tokens; there it is one per channel and token. Ours too: running averages over
    time, of mean and unbiased variance; there they are means over an epoch. Evaluation uses them
    for x_batch, and B of the last training batch.

    Args:
        dim: Number of channels, D.
        eps: Added to variances.
        momentum: Weight of a batch in `running_mean` `[dim]`, from 0, and `running_var` `[dim]`,
            from 1.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0; neither decays.
        channels_first: Normalize axis 1 instead of the last.

    Raises:
        ValueError: an option is out of its range.
    """

    running = True

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-3,
        momentum: float = 0.1,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.eps = check_eps(eps)
        self.momentum = check_fraction("momentum", momentum)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.running_mean = self.average(dim, device=device, dtype=dtype)
        self.running_var = self.average(dim, device=device, dtype=dtype)
        self.images = nn.Buffer(torch.empty((), dtype=torch.int64, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0)])
        fill([(self.running_mean, 0.0), (self.running_var, 1.0), (self.images, 1)])

    def normalize(self, x: Tensor) -> Tensor:
        if self.training:
            mean, variance, count = batch_moments(x)
            move_average(self.running_mean, mean, self.momentum)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            move_average(self.running_var, unbiased, self.momentum)
            own = 1 if x.ndim == 1 else len(x)
            self.images.copy_(sum_over_processes(torch.full_like(self.images, own)))
        else:
            mean, variance = self.running_mean.to(x.dtype), self.running_var.to(x.dtype)
        layer, layer_mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        feature = (x - layer_mean) / (layer + self.eps).sqrt()
        batch = (x - mean) / (variance + self.eps).sqrt()
        share = 1 / self.images.to(x.dtype)
        mixed = (share - 1e-4) * feature + (1 - share - 1e-4) * batch
        return scale_and_shift(mixed / self.dim**0.5, self.weight, self.bias)

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps, "momentum": self.momentum}
