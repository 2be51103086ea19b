"""Bounded hyperbolic tangent (BHyT, ICML 2026, https://github.com/MLAI-Yonsei/BHyT)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.rmsnorm import divide_by_rms
from vision.norms.tokens import TokenMoments


@register_norm("bhyt")
class BHyT(Norm):
    """y = w·tanh(λ·κ⁻¹·x/RMS(x)): RMSNorm whose output is kept out of tanh's flat ends.

    It is the exact form of the paper, for language models, in which every norm takes its own
    statistics; its faster form, in which the second norm of a block estimates them from the first,
    is not built. Formula and start values are those of the authors' code.

    Args:
        dim: Number of channels.
        lam_init: Initial value of λ, `lam` `[1]`, which is learned.
        inv_kappa: κ⁻¹, fixed.
        eps: Added to the mean square.
        affine: Learn `weight` `[dim]`, from 1; `lam` is always there. Neither decays.
        channels_first: Normalize axis 1 instead of the last.

    Raises:
        ValueError: `eps` is not a number above 0.
    """

    def __init__(
        self,
        dim: int,
        *,
        lam_init: float = 2.0,
        inv_kappa: float = 0.1,
        eps: float = 1e-6,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.lam_init = lam_init
        self.inv_kappa = inv_kappa
        self.eps = check_eps(eps)
        self.lam = self.vector(1, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.lam, self.lam_init), (self.weight, 1.0)])

    def normalize(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.lam.to(x.dtype) * self.inv_kappa * divide_by_rms(x, self.eps))
        return scale_and_shift(y, self.weight, None)

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Fraction of the activations whose tanh is beyond ±0.99."""
        x = x.movedim(1, -1) if self.channels_first else x
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        y = torch.tanh(self.lam * self.inv_kappa * divide_by_rms(x, self.eps))
        return {"saturated": (y.abs() > 0.99).float().mean()}

    def candidates(self, tokens: TokenMoments) -> list[dict[str, Any]]:
        # of tokens whose RMS is 1 already
        return [{"lam": slope * tokens.rms / self.inv_kappa} for slope in tokens.slopes]

    def shown_options(self) -> dict[str, Any]:
        return {"inv_kappa": self.inv_kappa, "eps": self.eps}
