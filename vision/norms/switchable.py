"""Switchable normalization (Luo et al. 2018, https://arxiv.org/abs/1806.10779)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.statistics import batch_moments, check_fraction, move_average
from vision.norms.tokens import as_tokens


@register_norm("switchable")
class SwitchableNorm(Norm):
    """y = w·(x − μ)/sqrt(σ² + eps) + b with learned mixtures μ and σ² of three norms' statistics.

    μ = Σ_k softmax(m)_k·μ_k, σ² = Σ_k softmax(v)_k·σ²_k; k runs over instance, layer and batch.
    Instance statistics are those of one channel over the tokens of an image (a masked encoder has
    only the kept ones), layer statistics those of one token over its channels, as in every
    transformer, batch statistics those of one channel over all tokens of the batch, of all
    processes. These places are ours, as the paper is on feature maps of convolutions. Variances
    are biased. Evaluation takes running averages for the statistics of the batch.

    Where an image is one token, as behind pooling, instance normalization is left out, as in the
    authors' one-dimensional form: the softmax runs over the other two.

    Args:
        dim: Number of channels.
        eps: Added to the variance; 1e-5 as in the authors' code.
        momentum: Weight of a batch in `running_mean` and `running_var` `[dim]`, both from 0; 0.1 as
            in their two-dimensional form.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0. m, `mean_weight` `[3]`,
            and v, `var_weight` `[3]`, from 1, are always there. None of them decays.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: an option is out of its range.
    """

    mixes_tokens = True
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
        self.mean_weight = self.vector(3, device, dtype)
        self.var_weight = self.vector(3, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.running_mean = self.average(dim, device=device, dtype=dtype)
        self.running_var = self.average(dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.mean_weight, 1.0), (self.var_weight, 1.0)])
        fill([(self.weight, 1.0), (self.bias, 0.0)])
        fill([(self.running_mean, 0.0), (self.running_var, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        tokens = as_tokens(x)
        moments = [_moments(tokens, 1), _moments(tokens, 2), self._of_batch(tokens)]
        first = 1 if tokens.shape[1] == 1 else 0  # the variance of an instance of one value is 0
        of_mean = self.mean_weight.to(x.dtype)[first:].softmax(0)
        of_variance = self.var_weight.to(x.dtype)[first:].softmax(0)
        mean, variance = tokens.new_zeros(()), tokens.new_zeros(())
        for a, b, (m, v) in zip(of_mean, of_variance, moments[first:], strict=True):
            mean, variance = mean + a * m, variance + b * v  # [B, L, D]
        y = (tokens - mean) / (variance + self.eps).sqrt()
        return scale_and_shift(y.reshape(x.shape), self.weight, self.bias)

    def _of_batch(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance `[D]` of the batch; in evaluation their running averages."""
        if not self.training:
            return self.running_mean.to(tokens.dtype), self.running_var.to(tokens.dtype)
        mean, variance, _ = batch_moments(tokens)
        move_average(self.running_mean, mean, self.momentum)
        move_average(self.running_var, variance, self.momentum)
        return mean, variance

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """What the softmax gives to instance, layer and batch statistics."""
        parts = {"mean": self.mean_weight, "var": self.var_weight}
        return {
            f"{part}_of_{kind}": weight
            for part, value in parts.items()
            for kind, weight in zip(
                ("instance", "layer", "batch"), value.detach().softmax(0), strict=True
            )
        }

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps, "momentum": self.momentum}


def _moments(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over one axis, which stays."""
    mean = x.mean(axis, keepdim=True)
    return mean, (x - mean).square().mean(axis, keepdim=True)
