"""Batch layer normalization.

Batch Layer Normalization, A new normalization layer for CNNs and RNN, 2022,
https://arxiv.org/abs/2209.08898
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import fill, scale_and_shift
from vision.norms.batchnorm import BatchNorm
from vision.norms.registry import register_norm
from vision.norms.statistics import sum_over_processes
from vision.norms.tokens import TokenMoments


@register_norm("batch_layernorm")
class BatchLayerNorm(BatchNorm):
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
        **options: Of `BatchNorm`, whose parameters and buffers it has; `images` `[]` is B, from 1.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-3,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dim, eps=eps, device=device, **options)
        self.images = nn.Buffer(torch.empty((), dtype=torch.int64, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "images"):  # not yet when BatchNorm is made
            fill([(self.images, 1)])

    def normalize(self, x: Tensor) -> Tensor:
        batch = self.standardize(x)
        if self.training:
            own = 1 if x.ndim == 1 else len(x)
            self.images.copy_(sum_over_processes(torch.full_like(self.images, own)))
        layer, layer_mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        feature = (x - layer_mean) / (layer + self.eps).sqrt()
        share = 1 / self.images.to(x.dtype)
        mixed = (share - 1e-4) * feature + (1 - share - 1e-4) * batch
        return scale_and_shift(mixed / self.dim**0.5, self.weight, self.bias)

    def candidates(self, tokens: TokenMoments) -> list[dict[str, Any]]:
        return []  # B, too, would have to be that of a training batch
