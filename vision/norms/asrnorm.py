"""ASR-Norm (Fan et al. 2021, Adversarially Adaptive Normalization for Single Domain Generalization,
https://arxiv.org/abs/2106.01899)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import Norm, check_eps, fill, linear
from vision.norms.registry import register_norm
from vision.norms.tokens import as_tokens


@register_norm("asrnorm")
class ASRNorm(Norm):
    """y = w'·(x − μ')/σ' + b': statistics and affine partly come from small networks.

    With mean μ and (biased) standard deviation σ per image and channel over the tokens (a masked
    encoder has only the kept ones), and every λ a sigmoid of a learned scalar:

        μ' = λ·network(μ) + (1 − λ)·μ,  σ' = λ·relu(network(σ)) + (1 − λ)·σ  with λ from sigmoid(−3)
        w' = λ·sigmoid(network(σ)) + w,  b' = λ·tanh(network(μ)) + b         with λ from sigmoid(−5)

    Formula, networks and initial λ are those of a third party's code
    (https://github.com/huanranchen/ASRNorm, the variant of instance normalization), where λ is
    learned without the sigmoid in places. Where an image is one token, as behind pooling, μ = x
    and σ = sqrt(eps), so that the output is about 50 times as large as x.

    Args:
        dim: Number of channels. The networks have about 1.7·dim² parameters.
        eps: Added to the variance.
        affine: Learn w', with `weight` `[dim]` from 1, and b', with `bias` `[dim]` from 0; else
            they are 1 and 0. Matrices of the networks decay, as those of linear layers do; the
            rest does not.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: `eps` is not a number above 0.
    """

    decayed = frozenset(
        f"{network}.{matrix}"
        for network in ("standardize", "rescale")
        for matrix in ("hidden", "of_mean", "of_std")
    )
    mixes_tokens = True

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
        made = {"device": device, "dtype": dtype}
        self.standardize = _Networks(dim, max(dim // 2, 1), -3.0, **made)
        self.rescale = _Networks(dim, max(dim // 16, 1), -5.0, **made) if affine else None
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        self.standardize.reset_parameters()
        if self.rescale is not None:
            self.rescale.reset_parameters()
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        tokens = as_tokens(x)
        mean = tokens.mean(1, keepdim=True)  # [B, 1, D]
        centered = tokens - mean
        std = (centered.square().mean(1, keepdim=True) + self.eps).sqrt()
        learned_mean, learned_std, (of_mean, of_std) = self.standardize(mean, std)
        # x − μ', without the loss of digits where x and μ are close
        y = centered - of_mean * (learned_mean - mean)
        y = y / (of_std * torch.relu(learned_std) + (1 - of_std) * std)
        if self.rescale is not None and self.weight is not None and self.bias is not None:
            shift, scale, (of_shift, of_scale) = self.rescale(mean, std)
            y = y * (of_scale * torch.sigmoid(scale) + self.weight.to(x.dtype))
            y = y + (of_shift * torch.tanh(shift) + self.bias.to(x.dtype))
        return y.reshape(x.shape)

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps}


class _Networks(nn.Module):
    """One network of the mean, one of the standard deviation, and how much of each is taken.

    They have one hidden layer with ReLU, which they share, and linear outputs.
    """

    def __init__(self, dim: int, hidden: int, mix_init: float, **made: Any) -> None:
        super().__init__()
        self.mix_init = mix_init
        self.hidden = nn.Parameter(torch.empty(hidden, dim, **made))
        self.hidden_bias = nn.Parameter(torch.empty(hidden, **made))
        self.of_mean = nn.Parameter(torch.empty(dim, hidden, **made))
        self.of_mean_bias = nn.Parameter(torch.empty(dim, **made))
        self.of_std = nn.Parameter(torch.empty(dim, hidden, **made))
        self.of_std_bias = nn.Parameter(torch.empty(dim, **made))
        self.mix = nn.Parameter(torch.empty(2, **made))

    def reset_parameters(self) -> None:
        for matrix in (self.hidden, self.of_mean, self.of_std):
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))  # as torch's linear layers
        fill([(bias, 0.0) for bias in (self.hidden_bias, self.of_mean_bias, self.of_std_bias)])
        fill([(self.mix, self.mix_init)])

    def forward(self, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the two networks, of the inputs' shape, and λ of each, `[2]`."""
        both = torch.stack([mean, std])  # [2, B, 1, D]
        hidden = torch.relu(linear(both, self.hidden, self.hidden_bias))
        out_mean = linear(hidden[0], self.of_mean, self.of_mean_bias)
        out_std = linear(hidden[1], self.of_std, self.of_std_bias)
        return out_mean, out_std, torch.sigmoid(self.mix.to(mean.dtype))
