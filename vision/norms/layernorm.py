"""Layer normalization (Ba, Kiros, Hinton 2016, https://arxiv.org/abs/1607.06450)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.norms.base import cast, check_eps, fill
from vision.norms.fused import FusedNorm
from vision.norms.kernels.ops import Kernel
from vision.norms.registry import register_norm


@register_norm("layernorm")
class LayerNorm(FusedNorm):
    """y = w·(x − mean)/sqrt(var + eps) + b, with mean and (biased) variance per token.

    Parameters are named as in `nn.LayerNorm`, so state dicts go both ways.

    Args:
        dim: Number of channels.
        eps: Added to the variance; 1e-6 as in timm's ViT; the default of `nn.LayerNorm` is 1e-5.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0.
        channels_first: Normalize axis 1 instead of the last.
        backend: "auto" for torch's own kernel, and in the blocks of a DiT for ours, which scales
            and shifts in the same pass; "triton" (GPU) or "compiled" (CPU) for ours everywhere;
            "eager" for torch's everywhere. The environment variable VISION_NORM_BACKEND overrides
            it.
    """

    only_modulated = True
    kernel: ClassVar[Kernel] = Kernel(
        "LayerNorm",
        ("weight", "bias"),
        {"weight": 1.0, "bias": 0.0},
        kept="heads",
        triton="vision.norms.kernels.layernorm_triton",
    )

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-6,
        affine: bool = True,
        channels_first: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first, backend=backend)
        self.eps = check_eps(eps)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.dim,), cast(self.weight, x), cast(self.bias, x), self.eps)

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps}
