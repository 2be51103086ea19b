"""Power normalization (PowerNorm, 2020, https://arxiv.org/abs/2003.07845)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.rmsnorm import divide_by_rms
from vision.norms.statistics import batch_mean, check_fraction, move_average, process_count


class _PowerNorm(torch.autograd.Function):
    """u/√(φ + eps), whose gradient takes φ as a constant less an average of what it neglects.

    With z the output and g its gradient, δ = g − (1−b)·ν·z is divided by √(m + eps) of the batch,
    and ν grows by the batch's mean of δ·z.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, phi: Tensor, moment: Tensor, nu: Tensor, rate: float, eps: float
    ) -> Tensor:
        z = u / (phi + eps).sqrt()
        ctx.save_for_backward(z, (moment + eps).sqrt())
        ctx.nu, ctx.rate = nu, rate  # ν as it is when the gradient comes
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, scale = ctx.saved_tensors
        count = process_count()
        delta = gradients[0] - count * ctx.rate * ctx.nu.to(z.dtype) * z
        ctx.nu.add_(batch_mean(delta * z).to(ctx.nu.dtype) / count)
        return delta / scale, None, None, None, None, None


# the backward pass changes a buffer, which a compiled graph cannot
_power_norm = torch.compiler.disable(_PowerNorm.apply)


@register_norm("powernorm")
class PowerNorm(Norm):
    """y = w·u/sqrt(φ + eps) + b, with u = x/RMS(x) per token, φ an average over training steps.

    In training φ averages the second moment m of each channel of u over all tokens of the batch of
    all processes; in warm-up m itself takes φ's place. The gradient is approximated as `_PowerNorm`
    says. Both as in the authors' code (sIncerass/powernorm, mask_powernorm.py; the copy in DTN's
    differs), which counts warm-up in steps, 10000 by default. That is longer than a small run, so
    here it is a fraction of the run, of which `follow` tells; where nobody calls it, warm-up never
    ends. Accumulated micro-batches count as steps.

    Args:
        dim: Number of channels.
        num_groups: Equal parts of a token with an RMS each; must divide `dim`.
        warmup: Fraction of the run for which the batch's own moment normalizes; 0.1 is ours.
        forward_decay: Weight that φ keeps at a step; `phi` `[dim]` starts at 1.
        backward_decay: b; ν is `nu` `[dim]`, from 0.
        eps: Added to all second moments.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0; neither decays.
        channels_first: Normalize axis 1 instead of the last.

    Raises:
        ValueError: `num_groups` does not divide `dim`, or an option is out of its range.
    """

    running = True
    exact_gradient = False

    def __init__(
        self,
        dim: int,
        *,
        num_groups: int = 1,
        warmup: float = 0.1,
        forward_decay: float = 0.9,
        backward_decay: float = 0.9,
        eps: float = 1e-5,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        if not isinstance(num_groups, int) or num_groups < 1 or dim % num_groups:
            raise ValueError(f"num_groups={num_groups} does not divide dim={dim}; use 1")
        self.num_groups = num_groups
        self.warmup = check_fraction("warmup", warmup, zero=True)
        self.forward_decay = check_fraction("forward_decay", forward_decay, zero=True)
        self.backward_decay = check_fraction("backward_decay", backward_decay, zero=True)
        self.eps = check_eps(eps)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.phi = self.average(dim, device=device, dtype=dtype)
        self.nu = self.average(dim, device=device, dtype=dtype)
        self.progress = self.average(device=device, dtype=dtype)
        self.steps = nn.Buffer(torch.empty((), dtype=torch.int64, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0), (self.phi, 1.0), (self.nu, 0.0)])
        fill([(self.progress, 0.0), (self.steps, 0)])

    def follow(self, progress: float) -> None:
        fill([(self.progress, progress)])

    def normalize(self, x: Tensor) -> Tensor:
        u = divide_by_rms(x.unflatten(-1, (self.num_groups, -1)), self.eps).flatten(-2)
        evaluated = (self.phi.to(x.dtype) + self.eps).sqrt()
        z = self._train(u) if self.training else u / evaluated
        return scale_and_shift(z, self.weight, self.bias)

    def _train(self, u: Tensor) -> Tensor:
        moment = batch_mean(u.detach().square())
        warming = self.progress < self.warmup
        phi = torch.where(warming, moment, self.phi.to(u.dtype))  # of the steps before this one
        self.steps.add_(1)
        equal = moment.to(self.phi.dtype).sub(self.phi) / self.steps  # weighs all steps equally
        self.phi.add_(torch.where(warming, equal, 0.0))
        move_average(self.phi, moment, 1 - self.forward_decay)
        return _power_norm(u, phi, moment, self.nu, 1 - self.backward_decay, self.eps)

    def shown_options(self) -> dict[str, Any]:
        return {"num_groups": self.num_groups, "warmup": self.warmup, "eps": self.eps}
