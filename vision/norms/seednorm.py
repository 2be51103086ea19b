"""Self-rescaled dynamic normalization (SeeDNorm, 2025, https://arxiv.org/abs/2510.22777)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.norms.base import Norm, cast, check_eps, fill
from vision.norms.kernels import ops
from vision.norms.kernels.backend import choose_backend, requested_backend
from vision.norms.registry import register_norm
from vision.norms.rmsnorm import divide_by_rms


def seednorm(
    x: Tensor,
    alpha: Tensor,
    beta: Tensor,
    gamma: Tensor | None,
    num_heads: int = 1,
    eps: float = 1e-6,
    dropout: float = 0.0,
    training: bool = False,
) -> Tensor:
    """[tanh(x·β)·α + γ] ⊙ x/RMS(x): the formula that every kernel is tested against.

    Args:
        x: `[..., D]`, float32 or float64.
        alpha: `[D]`, x's dtype.
        beta: `[D]`, x's dtype.
        gamma: `[D]`, x's dtype; None stands for ones.
        num_heads: Number of equal parts of x, β and α, each with a tanh value of its own. The mean
            square runs over all of D.
        eps: Added to the mean square.
        dropout: Probability to set a tanh value to 0 in training.
        training: Whether dropout is applied.

    Returns:
        `[..., D]`, x's dtype.
    """
    heads = (num_heads, x.shape[-1] // num_heads)
    # product and sum, not a matmul: autocast would take a matmul to half precision
    dot = (x * beta).unflatten(-1, heads).sum(-1, keepdim=True)  # [..., H, 1]
    dynamic = F.dropout(torch.tanh(dot), dropout, training)
    scale = (dynamic * alpha.unflatten(-1, heads)).flatten(-2)  # [..., D]
    scale = scale + (1 if gamma is None else gamma)
    return scale * divide_by_rms(x, eps)


@register_norm("seednorm")
class SeeDNorm(Norm):
    """y = [tanh(x·β)·α + γ] ⊙ x/RMS(x): RMSNorm whose scale depends on the token's own size.

    β starts at 0, so the norm starts as RMSNorm. The gradient of β is proportional to α, which
    must therefore not start at 0 too. The scale stays within γ ± |α|. The formula is the paper's;
    initial values, the decay rule (α and β decay, γ does not) and the details of the
    multi-head form come from summaries of the paper, as no official code is public.

    Args:
        dim: Number of channels.
        num_heads: Heads of the multi-head form, which the paper proposes for stability; must
            divide `dim`. Parameters have shape `[dim]` for any number.
        alpha_init: Initial value of `alpha` `[dim]`; not 0. `beta` `[dim]` starts at 0.
        eps: Added to the mean square.
        dropout: Probability to set a tanh value (of one token and head) to 0 in training.
        affine: Learn `gamma` `[dim]`, from 1; otherwise it is 1. `alpha` and `beta`, the dynamic
            part, are always there.
        channels_first: Normalize axis 1 instead of the last.
        backend: "triton" (GPU) or "compiled" (CPU) for the fused kernel, "eager" for `seednorm`,
            "auto" to choose by device, dtype and shape. The environment variable
            VISION_NORM_BACKEND overrides it. Training with dropout always takes `seednorm`.

    Raises:
        ValueError: `num_heads` does not divide `dim`, an option is out of its range, or the
            backend is not available.
    """

    decayed = frozenset({"alpha", "beta"})

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 1,
        alpha_init: float = 1.0,
        eps: float = 1e-6,
        dropout: float = 0.0,
        affine: bool = True,
        channels_first: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        if not isinstance(num_heads, int) or num_heads < 1 or dim % num_heads:
            divisors = [n for n in range(1, min(dim, 64) + 1) if dim % n == 0]
            raise ValueError(f"num_heads={num_heads} does not divide dim={dim}; try {divisors}")
        if alpha_init == 0:
            raise ValueError(
                "alpha_init=0 would never train: beta starts at 0, so alpha and beta would both "
                "have zero gradient forever; use 1"
            )
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        self.num_heads = num_heads
        self.alpha_init = alpha_init
        self.eps = check_eps(eps)
        self.dropout = dropout
        self.backend = requested_backend(backend)
        self.alpha = self.vector(dim, device, dtype)
        self.beta = self.vector(dim, device, dtype)
        self.gamma = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.alpha, self.alpha_init), (self.beta, 0.0), (self.gamma, 1.0)])

    def normalize(self, x: Tensor) -> Tensor:
        return seednorm(
            x,
            self.alpha.to(x.dtype),
            self.beta.to(x.dtype),
            cast(self.gamma, x),
            self.num_heads,
            self.eps,
            self.dropout,
            self.training,
        )

    def normalize_promoted(self, x: Tensor) -> Tensor:
        backend = choose_backend(self.backend, x, self.dim)
        if backend == "eager" or (self.training and self.dropout > 0):
            return super().normalize_promoted(x)
        p = (self.alpha, self.beta, self.gamma)
        return ops.seednorm(x, *p, self.num_heads, self.eps, backend=backend)

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Mean, standard deviation and saturated fraction (beyond ±0.99) of the tanh values."""
        x = x.movedim(1, -1) if self.channels_first else x
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        heads = (self.num_heads, self.dim // self.num_heads)
        dynamic = torch.tanh((x * self.beta).unflatten(-1, heads).sum(-1))  # [..., H]
        return {
            "dynamic_mean": dynamic.mean(),
            "dynamic_std": dynamic.std(correction=0),
            "dynamic_saturated": (dynamic.abs() > 0.99).float().mean(),
        }

    def shown_options(self) -> dict[str, Any]:
        shown = {"num_heads": self.num_heads, "eps": self.eps}
        usual = {"dropout": 0.0, "backend": "auto"}
        return shown | {k: v for k, u in usual.items() if (v := getattr(self, k)) != u}
