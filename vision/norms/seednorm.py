"""Self-rescaled dynamic normalization (SeeDNorm, 2025, https://arxiv.org/abs/2510.22777)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vision.norms.base import Norm, cast, check_eps, fill
from vision.norms.fused import FusedNorm
from vision.norms.kernels.ops import Kernel
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
        beta: `[D]`, x's dtype; whoever wants x·β divided (`dot_scale`) divides it.
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
class SeeDNorm(FusedNorm):
    """y = [tanh(x·β)·α + γ] ⊙ x/RMS(x): RMSNorm whose scale depends on the token's own size.

    β starts at 0, so the norm starts as RMSNorm. The gradient of β is proportional to α, which
    must therefore not start at 0 too. The scale stays within γ ± |α|. The formula is the paper's;
    initial values, the decay rule (α and β decay, γ does not), the details of the multi-head form
    and both options for vision (`coefficient_dropout`, `dot_scale`) come from a third party's
    summary of the paper, as no official code is public.

    Args:
        dim: Number of channels.
        num_heads: Heads of the multi-head form, which the paper proposes for stability; must
            divide `dim`. Parameters have shape `[dim]` for any number.
        alpha_init: Initial value of `alpha` `[dim]`; not 0. `beta` `[dim]` starts at 0.
        eps: Added to the mean square.
        coefficient_dropout: Probability to drop the dynamic coefficient tanh(x·β)·α of one token
            and head in training; "drop_path" for the drop-path rate of the block that the norm
            stands in, 0 outside of blocks, which `convert_norms` tells it.
        dot_scale: What x·β is divided by: "none", "dim" (D) or "head_dim" (D/num_heads). The
            summary names a division by the dimension for ViTs and leaves open which dimension,
            and whether inside the tanh; here it is inside.
        affine: Learn `gamma` `[dim]`, from 1; otherwise it is 1. `alpha` and `beta`, the dynamic
            part, are always there.
        channels_first: Normalize axis 1 instead of the last.
        backend: "triton" (GPU) or "compiled" (CPU) for the fused kernel, "eager" for `seednorm`,
            "auto" to choose by device and dtype. The environment variable VISION_NORM_BACKEND
            overrides it.

    Attributes:
        dropout_rate: The rate in use; None while "drop_path" waits for a block.

    Raises:
        ValueError: `num_heads` does not divide `dim`, an option is out of its range, the backend is
            not available; in training, if "drop_path" was never told a rate.
    """

    decayed = frozenset({"alpha", "beta"})
    scale_name = "gamma"
    kernel: ClassVar[Kernel] = Kernel(
        "SeeDNorm",
        ("alpha", "beta", "gamma"),
        {"gamma": 1.0},
        kept="heads",
        triton="vision.norms.kernels.seednorm_triton",
    )

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 1,
        alpha_init: float = 1.0,
        eps: float = 1e-6,
        coefficient_dropout: float | str = 0.0,
        dot_scale: str = "none",
        affine: bool = True,
        channels_first: bool = False,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first, backend=backend)
        if not isinstance(num_heads, int) or num_heads < 1 or dim % num_heads:
            fitting = [n for n in range(1, min(dim, 64) + 1) if dim % n == 0]
            raise ValueError(f"num_heads={num_heads} does not divide dim={dim}; try {fitting}")
        if alpha_init == 0:
            raise ValueError(
                "alpha_init=0 would never train: beta starts at 0, so alpha and beta would both "
                "have zero gradient forever; use 1"
            )
        divisors = {"none": 1, "dim": dim, "head_dim": dim // num_heads}
        if dot_scale not in divisors:
            raise ValueError(f"dot_scale must be one of {', '.join(divisors)}, got {dot_scale!r}")
        self.coefficient_dropout = coefficient_dropout
        self.dropout_rate = _fixed_rate(coefficient_dropout)
        self.dot_scale = dot_scale
        self.dot_divisor = divisors[dot_scale]
        self.num_heads = num_heads
        self.alpha_init = alpha_init
        self.eps = check_eps(eps)
        self.alpha = self.vector(dim, device, dtype)
        self.beta = self.vector(dim, device, dtype)
        self.gamma = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.alpha, self.alpha_init), (self.beta, 0.0), (self.gamma, 1.0)])

    def enter_block(self, drop_path_rate: float | None) -> None:
        if self.coefficient_dropout == "drop_path":
            if drop_path_rate is None:
                raise ValueError(
                    "coefficient_dropout='drop_path': blocks of this model have no drop path; give "
                    "a number, or leave it out"
                )
            self.dropout_rate = drop_path_rate

    def normalize(self, x: Tensor) -> Tensor:
        return seednorm(
            x,
            self.alpha.to(x.dtype),
            self._divided_beta(x).to(x.dtype),
            cast(self.gamma, x),
            self.num_heads,
            self.eps,
            self._dropout() if self.training else 0.0,
            self.training,
        )

    def fused(
        self, x: Tensor, backend: str, modulation: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        parameters = (self.alpha, self._divided_beta(x), self.gamma)
        return self.kernel(
            x,
            *parameters,
            num_heads=self.num_heads,
            eps=self.eps,
            keep=1 - self._dropout() if self.training else 1.0,
            backend=backend,
            modulation=modulation,
        )

    def _divided_beta(self, x: Tensor) -> Tensor:
        """β over `dot_divisor`, which divides x·β; in at least float32 where it differs from β."""
        if self.dot_divisor == 1:
            return self.beta
        return self.beta.to(torch.promote_types(x.dtype, torch.float32)) / self.dot_divisor

    def _dropout(self) -> float:
        if self.dropout_rate is None:
            raise ValueError(
                "coefficient_dropout='drop_path': this norm was told no block; let convert_norms "
                "place it, or give a number"
            )
        return self.dropout_rate

    @classmethod
    def remark(cls, norms: Sequence[Norm]) -> str:
        """The rates of coefficient dropout."""
        mine = [norm for norm in norms if isinstance(norm, SeeDNorm)]
        rates = [norm.dropout_rate or 0.0 for norm in mine]
        if any(norm.coefficient_dropout == "drop_path" for norm in mine):
            if max(rates) == 0:
                return "coefficient dropout 0 everywhere: the blocks have no drop path"
            return f"coefficient dropout {min(rates):.3g} to {max(rates):.3g} by block"
        return f"coefficient dropout {max(rates):.3g}" if max(rates) > 0 else ""

    def coefficients(self, x: Tensor) -> Tensor:
        """tanh(x·β) of each token and head, [..., num_heads] in at least float32.

        `x` is as in `forward`. The dynamic part of the scale is this times α.
        """
        x = x.movedim(1, -1) if self.channels_first else x
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        heads = (self.num_heads, self.dim // self.num_heads)
        return torch.tanh((x * self._divided_beta(x)).unflatten(-1, heads).sum(-1))

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Mean, standard deviation and saturated fraction (beyond ±0.99) of the tanh values."""
        dynamic = self.coefficients(x)
        return {
            "dynamic_mean": dynamic.mean(),
            "dynamic_std": dynamic.std(correction=0),
            "dynamic_saturated": (dynamic.abs() > 0.99).float().mean(),
        }

    def shown_options(self) -> dict[str, Any]:
        shown = {"num_heads": self.num_heads, "eps": self.eps}
        usual = {"coefficient_dropout": 0.0, "dot_scale": "none"}
        return shown | {k: v for k, u in usual.items() if (v := getattr(self, k)) != u}


def _fixed_rate(coefficient_dropout: float | str) -> float | None:
    """A rate that does not depend on the block; None for "drop_path"."""
    if coefficient_dropout == "drop_path":
        return None
    if isinstance(coefficient_dropout, str) or not 0 <= coefficient_dropout < 1:
        raise ValueError(
            "coefficient_dropout must be a number at least 0 and below 1, or 'drop_path', got "
            f"{coefficient_dropout!r}"
        )
    return float(coefficient_dropout)
