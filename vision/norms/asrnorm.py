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

        h = relu(encode·μ),  μ' = λ·(to_mean·h) + (1 − λ)·μ       λ from sigmoid(−3)
        h = relu(encode·σ),  σ' = λ·relu(to_std·h) + (1 − λ)·σ
        h = relu(encode_affine·μ),  b' = λ·tanh(to_shift·h) + b   λ from sigmoid(−5)
        h = relu(encode_affine·σ),  w' = λ·sigmoid(to_scale·h) + w

    Formula, widths and initial λ are those of a third party's code
    (https://github.com/huanranchen/ASRNorm, the variant of instance normalization). Where an image
    is one token, as behind pooling, μ = x and σ = sqrt(eps), so that the output is large: leave
    such norms out.

    Args:
        dim: Number of channels. The networks have about 1.7·dim² parameters.
        eps: Added to the variance.
        affine: Learn w', with `weight` `[dim]` from 1, and b', with `bias` `[dim]` from 0; else
            they are 1 and 0. Networks have biases and dim/2 and dim/16 (at least 1) hidden units;
            their matrices decay, as those of linear layers do, the rest does not.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: `eps` is not a number above 0.
    """

    decayed = frozenset({"encode", "to_mean", "to_std", "encode_affine", "to_scale", "to_shift"})
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
        wide, narrow = max(dim // 2, 1), max(dim // 16, 1)
        layers = [("encode", wide, dim), ("to_mean", dim, wide), ("to_std", dim, wide)]
        rescale = [
            ("encode_affine", narrow, dim), ("to_scale", dim, narrow), ("to_shift", dim, narrow)
        ]  # fmt: skip
        for name, rows, columns in layers + rescale:
            there = affine or (name, rows, columns) in layers
            matrix = self.matrix(rows, columns, device, dtype) if there else None
            self.register_parameter(name, matrix)
            bias = self.vector(rows, device, dtype) if there else None
            self.register_parameter(f"{name}_bias", bias)
        for name in ("mean", "std", "scale", "shift"):
            there = affine or name in ("mean", "std")
            mix = self.vector(1, device, dtype) if there else None
            self.register_parameter(f"mix_{name}", mix)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for name in sorted(self.decayed):
            if (matrix := getattr(self, name)) is not None:
                nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))  # as torch's linear layers
                fill([(getattr(self, f"{name}_bias"), 0.0)])
        fill([(self.mix_mean, -3.0), (self.mix_std, -3.0)])
        fill([(self.mix_scale, -5.0), (self.mix_shift, -5.0)])
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        tokens = as_tokens(x)
        mean = tokens.mean(1, keepdim=True)  # [B, 1, D]
        centered = tokens - mean
        std = (centered.square().mean(1, keepdim=True) + self.eps).sqrt()
        mix_mean, mix_std = self.mixed("mean", x), self.mixed("std", x)
        learned_mean = self.network("to_mean", "encode", mean)
        learned_std = torch.relu(self.network("to_std", "encode", std))
        # x − μ' without the loss of digits where x and μ are close
        y = centered - mix_mean * (learned_mean - mean)
        y = y / (mix_std * learned_std + (1 - mix_std) * std)
        if self.weight is not None and self.bias is not None:
            scale = torch.sigmoid(self.network("to_scale", "encode_affine", std))
            shift = torch.tanh(self.network("to_shift", "encode_affine", mean))
            y = y * (self.mixed("scale", x) * scale + self.weight.to(x.dtype))
            y = y + self.mixed("shift", x) * shift + self.bias.to(x.dtype)
        return y.reshape(x.shape)

    def mixed(self, name: str, x: Tensor) -> Tensor:
        """λ of the network `name`, `[1]`, in x's dtype."""
        return torch.sigmoid(getattr(self, f"mix_{name}").to(x.dtype))

    def network(self, output: str, hidden: str, x: Tensor) -> Tensor:
        """Two layers, by name, with ReLU between them, of `x` `[..., dim]`."""
        for name in (hidden, output):
            x = torch.relu(x) if name == output else x
            x = linear(x, getattr(self, name), getattr(self, f"{name}_bias"))
        return x

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps}
