"""Batch normalization (Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.statistics import batch_moments, check_fraction, move_average
from vision.norms.tokens import TokenMoments


@register_norm("batchnorm")
class BatchNorm(Norm):
    """y = w·(x − mean)/sqrt(var + eps) + b, with mean and (biased) variance per channel.

    In training they are those of all tokens of all images in the batch, over all processes. The
    running averages that evaluation uses take the unbiased variance, as `nn.BatchNorm1d` does;
    parameters and buffers have its names. Accumulated micro-batches are normalized one by one. Of
    a single value the variance is 0, so that the output is b; torch refuses it.

    Args:
        dim: Number of channels.
        eps: Added to the variance; 1e-5 as in torch and in the vision transformers of SLAB
            (https://arxiv.org/abs/2405.11582).
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
        eps: float = 1e-5,
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
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0)])
        fill([(self.running_mean, 0.0), (self.running_var, 1.0)])

    def normalize(self, x: Tensor) -> Tensor:
        return scale_and_shift(self.standardize(x), self.weight, self.bias)

    def standardize(self, x: Tensor) -> Tensor:
        """(x − mean)/sqrt(var + eps), `[..., dim]`; in training the running averages move."""
        if self.training:
            mean, variance, count = batch_moments(x)
            move_average(self.running_mean, mean, self.momentum)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            move_average(self.running_var, unbiased, self.momentum)
        else:
            mean, variance = self.running_mean.to(x.dtype), self.running_var.to(x.dtype)
        # a division: the derivative of rsqrt underflows for large variances
        return (x - mean) / (variance + self.eps).sqrt()

    def candidates(self, tokens: TokenMoments) -> list[dict[str, Any]]:
        return [{"running_mean": tokens.mean, "running_var": tokens.variance}]

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps, "momentum": self.momentum}
