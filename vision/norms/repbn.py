"""Progressive re-parameterized batch normalization (SLAB, 2024, https://arxiv.org/abs/2405.11582)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.norms.base import cast, fill
from vision.norms.batchnorm import BatchNorm
from vision.norms.registry import register_norm
from vision.norms.statistics import check_fraction


@register_norm("repbn")
class RepBN(BatchNorm):
    """y = λ·LN(x) + (1−λ)·(BN(x) + η·x) in training, and BN(x) + η·x in evaluation.

    BN is `BatchNorm` and LN is LayerNorm, each with its own weight and bias; η is a learned scalar.
    λ falls linearly from 1 to 0 over the training run, as `follow` tells; where nobody calls it, λ
    stays at 1, so that training sees LayerNorm alone while evaluation does not. Evaluation before
    λ reaches 0 therefore says little. Both take over what an old norm learned.

    Args:
        dim: Number of channels.
        end: Fraction of the run at which λ reaches 0. The published code counts down a number of
            steps; 0.8 is ours, because losses that are not finite were reported there for a late
            end.
        affine: Learn `weight`, `layernorm_weight` `[dim]`, from 1, and `bias`, `layernorm_bias`
            `[dim]`, from 0. `eta` `[1]`, from 1, is always learned. None of them decays.
        **options: Of `BatchNorm`; `eps` is LN's too. `running_mean`, `running_var` are its buffers,
            `mix` `[]` is λ.

    Raises:
        ValueError: an option is out of its range.
    """

    branches = ("layernorm_",)  # training starts with it, so with what a LayerNorm had learned

    def __init__(
        self,
        dim: int,
        *,
        end: float = 0.8,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dim, affine=affine, device=device, dtype=dtype, **options)
        self.end = check_fraction("end", end)
        self.eta = self.vector(1, device, dtype)
        self.layernorm_weight = self.vector(dim, device, dtype) if affine else None
        self.layernorm_bias = self.vector(dim, device, dtype) if affine else None
        self.mix = self.average(device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "mix"):  # not yet when BatchNorm is made
            fill([(self.eta, 1.0), (self.mix, 1.0)])
            fill([(self.layernorm_weight, 1.0), (self.layernorm_bias, 0.0)])

    def follow(self, progress: float) -> None:
        fill([(self.mix, max(0.0, 1 - progress / self.end))])

    def normalize(self, x: Tensor) -> Tensor:
        # of an alias: terms of BN's gradient cancel, and must before others are added
        y = super().normalize(x.view_as(x)) + self.eta.to(x.dtype) * x
        if not self.training:
            return y
        weight, bias = cast(self.layernorm_weight, x), cast(self.layernorm_bias, x)
        # computed when λ is 0 too: a parameter without a gradient would stop distributed training
        layernorm = F.layer_norm(x, (self.dim,), weight, bias, self.eps)
        return torch.lerp(y, layernorm, self.mix.to(x.dtype))

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """λ and η."""
        return {"lambda": self.mix, "eta": self.eta.detach()[0]}

    def shown_options(self) -> dict[str, Any]:
        return super().shown_options() | {"end": self.end}
