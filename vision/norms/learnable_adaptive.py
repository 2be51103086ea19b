"""Learnable adaptive normalization (2025, https://doi.org/10.1016/j.knosys.2025.113968)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm


@register_norm("learnable_adaptive")
class LearnableAdaptiveNorm(Norm):
    """y = w·(x − m·m_w)/sqrt(relu(v·v_w) + eps) + b: mean and variance are learned, not measured.

    Elementwise and linear in x, so it starts as the identity and bounds nothing. A channel whose
    v·v_w falls to 0 is multiplied by 1/sqrt(eps), and its v and v_w learn no more.

    Formula and start values are those of the authors' code
    (https://github.com/JanRland/AdaptiveNormalizationLayer), in which m_w and v_w are an option.
    One value per channel is ours: their transformer has one per token.

    Args:
        dim: Number of channels.
        eps: Added to the variance.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0. `m`, from 0, and `m_w`,
            `v` and `v_w`, from 1, all `[dim]`, are always there. None of them decays.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: `eps` is not a number above 0.
    """

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-7,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.eps = check_eps(eps)
        self.m = self.vector(dim, device, dtype)
        self.m_w = self.vector(dim, device, dtype)
        self.v = self.vector(dim, device, dtype)
        self.v_w = self.vector(dim, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.m, 0.0), (self.m_w, 1.0), (self.v, 1.0), (self.v_w, 1.0)])
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        m, m_w, v, v_w = (p.to(x.dtype) for p in (self.m, self.m_w, self.v, self.v_w))
        y = (x - m * m_w) / (torch.relu(v * v_w) + self.eps).sqrt()
        return scale_and_shift(y, self.weight, self.bias)

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps}
