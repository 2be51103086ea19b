"""Dynamic layer normalization (Kim, Song, Bengio 2017, https://arxiv.org/abs/1707.06065)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.norms.base import Norm, check_eps, fill, linear
from vision.norms.registry import register_norm
from vision.norms.tokens import as_tokens


@register_norm("dynamic_layernorm")
class DynamicLayerNorm(Norm):
    """y = (w + U·a)·(x − mean)/sqrt(var + eps) + b + V·a: LayerNorm with a scale for each image.

    a = mean over the image's tokens (a masked encoder has only the kept ones) of tanh(S·x + c).
    The paper, on speech, makes the scale and shift of an LSTM's LayerNorms from a summary of the
    utterance; this form is read in a summary of the paper. Ours: the norm's own input is what
    is summarized, the size of the summary, and U and V start at 0, so that it starts as LayerNorm.
    The paper's penalty for summaries that are alike is left out.

    Args:
        dim: Number of channels.
        summary_dim: Size of a; default: dim/16, at least 1.
        eps: Added to the variance.
        affine: Learn w, `weight` `[dim]`, from 1, and b, `bias` `[dim]`, from 0. S, `summary`
            `[summary_dim, dim]`, random, c, `summary_bias` `[summary_dim]`, from 0, U, `to_scale`,
            and V, `to_shift`, `[dim, summary_dim]`, are always there. The matrices S, U and V
            decay, as those of linear layers do.
        channels_first: Normalize axis 1 instead of the last.

    Raises:
        ValueError: an option is out of its range.
    """

    decayed = frozenset({"summary", "to_scale", "to_shift"})
    mixes_tokens = True

    def __init__(
        self,
        dim: int,
        *,
        summary_dim: int | None = None,
        eps: float = 1e-6,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        size = max(dim // 16, 1) if summary_dim is None else summary_dim
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"summary_dim must be an integer of at least 1, got {summary_dim!r}")
        self.summary_dim = size
        self.eps = check_eps(eps)
        self.summary = self.matrix(size, dim, device, dtype)
        self.summary_bias = self.vector(size, device, dtype)
        self.to_scale = self.matrix(dim, size, device, dtype)
        self.to_shift = self.matrix(dim, size, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.kaiming_uniform_(self.summary, a=math.sqrt(5))  # as torch's linear layers
        fill([(self.summary_bias, 0.0), (self.to_scale, 0.0), (self.to_shift, 0.0)])
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        tokens = as_tokens(x)
        hidden = torch.tanh(linear(tokens, self.summary, self.summary_bias))
        summary = hidden.mean(1, keepdim=True)  # [B, 1, S]
        scale = linear(summary, self.to_scale, self.weight) + (0 if self.affine else 1)
        shift = linear(summary, self.to_shift, self.bias)
        y = scale * F.layer_norm(tokens, (self.dim,), eps=self.eps) + shift
        return y.reshape(x.shape)

    def shown_options(self) -> dict[str, Any]:
        return {"summary_dim": self.summary_dim, "eps": self.eps}
