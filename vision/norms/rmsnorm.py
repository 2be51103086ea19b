"""Root mean square normalization (Zhang, Sennrich 2019, https://arxiv.org/abs/1910.07467)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vision.norms.base import check_eps, fill, scale_and_shift
from vision.norms.fused import FusedNorm
from vision.norms.kernels.ops import Kernel
from vision.norms.registry import register_norm


def divide_by_rms(x: Tensor, eps: float) -> Tensor:
    """x/sqrt(mean(x²) + eps) over the last axis, in x's dtype.

    A division, not `F.rms_norm`: the gradient of torch's composite form contains the cube of
    1/RMS, which underflows in float32 from |x| = 1e13 on, and then the input gradient is wrong.
    """
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@register_norm("rmsnorm")
class RMSNorm(FusedNorm):
    """y = w·x/sqrt(mean(x²) + eps), with the mean per token.

    The parameter is named as in `nn.RMSNorm`, so state dicts go both ways. Squares are taken in
    the dtype of the computation: they overflow for float32 input beyond about 1e18, as in torch.

    Args:
        dim: Number of channels.
        eps: Added to the mean square; 1e-6; the default of `nn.RMSNorm` is the machine epsilon.
        affine: Learn `weight` `[dim]`, from 1.
        channels_first: Normalize axis 1 instead of the last.
        backend: "triton" (GPU) or "compiled" (CPU) for the fused kernel, "eager" for the plain
            formula, "auto" to choose by device and dtype; VISION_NORM_BACKEND overrides it.
    """

    kernel: ClassVar[Kernel] = Kernel(
        "RMSNorm",
        ("weight",),
        {"weight": 1.0},
        kept="rms",
        triton="vision.norms.kernels.rmsnorm_triton",
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
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0)])

    def normalize(self, x: Tensor) -> Tensor:
        return scale_and_shift(divide_by_rms(x, self.eps), self.weight, None)

    def shown_options(self) -> dict[str, Any]:
        return {"eps": self.eps}
