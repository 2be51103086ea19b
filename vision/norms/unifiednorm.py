"""Unified normalization.

Unified Normalization for Accelerating and Stabilizing Transformers, 2022,
https://arxiv.org/abs/2208.01313
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import Norm, cast, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.statistics import batch_mean, check_fraction, move_average, process_count


class _UnifiedNorm(torch.autograd.Function):
    """w·z with z = x/√(v + eps), and a gradient whose statistics are averaged over steps too.

    With g the gradient of z times r, what is subtracted is not the batch's own mean of g·z times z
    but an average of it; a skipped batch takes its own.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        scale: Tensor,
        ratio: Tensor,
        smooth: Tensor,
        skip: Tensor,
        norm: UnifiedNorm,
    ) -> Tensor:
        z = x / scale
        ctx.save_for_backward(z, weight, scale, ratio, smooth, skip)
        ctx.norm = norm
        return z if weight is None else weight * z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        z, weight, scale, ratio, smooth, skip = ctx.saved_tensors
        norm, dy = ctx.norm, gradients[0] * ratio
        g = dy if weight is None else dy * weight
        count, nu = process_count(), norm.nu.to(z.dtype)
        own = batch_mean(g * z) / count
        push(norm.gradients, torch.where(skip, nu, own))
        mean = torch.where(smooth, norm.gradients.mean(0).to(z.dtype), own)
        nu = norm.decay * nu + (1 - norm.decay) * mean
        norm.nu.copy_(nu)
        dx = (g - count * torch.where(skip, mean, nu) * z) / scale
        dw = None if weight is None else (dy * z).reshape(-1, z.shape[-1]).sum(0)
        return dx, dw, None, None, None, None, None


# the backward pass changes buffers, which a compiled graph cannot
_unified_norm = torch.compiler.disable(_UnifiedNorm.apply)


def push(window: Tensor, value: Tensor) -> None:
    """Put `value` `[D]` at the end of `window` `[n, D]` and drop the first row, in place."""
    window.copy_(torch.cat([window[1:], value[None].to(window.dtype)]))


@register_norm("unifiednorm")
class UnifiedNorm(Norm):
    """y = w·x/sqrt(v + eps) + b, with v per channel the geometric mean of the last second moments.

    Moments are those of all tokens of the batch of all processes. In warm-up, and for a batch that
    is skipped, v is the batch's own. A batch is skipped if for some channel the arithmetic mean of
    the window exceeds the geometric one by more than `window` times the variance of the roots in
    the window before it; the running moment then takes its place in the window. Gradients are
    approximated: those of z and w are multiplied by r = sqrt(v + eps)/sqrt(running + eps) within
    1/5 and 5, and the mean of g·z is averaged over the window and then over time. Evaluation uses
    the running moment, an average of v.

    This follows the authors' code (hikvision-research/Unified-Normalization). There, warm-up is
    4000 steps, longer than a small run; here it is a fraction of the run, of which `follow` tells,
    and at least until the window is full; where nobody calls it, warm-up never ends. Skipping and
    r begin with the end of warm-up; there, r has a count of its own. Accumulated micro-batches
    count as steps.

    Args:
        dim: Number of channels.
        window: Number of batches in the means, at least 2.
        warmup: Fraction of the run; 0.1 is ours.
        skip_outliers: Whether batches are skipped, as the authors advise for images. `skipped` `[]`
            counts them.
        decay: Weight that the running moment `[dim]`, from 1, and `nu` `[dim]`, from 0, that of the
            gradient, keep at a step.
        eps: Added to second moments.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0; neither decays.
        channels_first: Normalize axis 1 instead of the last.

    Raises:
        ValueError: an option is out of its range.
    """

    running = True
    exact_gradient = False

    def __init__(
        self,
        dim: int,
        *,
        window: int = 4,
        warmup: float = 0.1,
        skip_outliers: bool = True,
        decay: float = 0.9,
        eps: float = 1e-5,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        if not isinstance(window, int) or window < 2:
            raise ValueError(f"window must be a number of batches, at least 2, got {window!r}")
        self.window = window
        self.warmup = check_fraction("warmup", warmup, zero=True)
        self.skip_outliers = skip_outliers
        self.decay = check_fraction("decay", decay, zero=True)
        self.eps = check_eps(eps)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.running_moment = self.average(dim, device=device, dtype=dtype)
        self.moments = self.average(window, dim, device=device, dtype=dtype)
        self.nu = self.average(dim, device=device, dtype=dtype)
        self.gradients = self.average(window, dim, device=device, dtype=dtype)
        self.progress = self.average(device=device, dtype=dtype)
        self.steps = nn.Buffer(torch.empty((), dtype=torch.int64, device=device))
        self.skipped = nn.Buffer(torch.empty((), dtype=torch.int64, device=device))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0), (self.running_moment, 1.0), (self.nu, 0.0)])
        fill([(self.moments, 0.0), (self.gradients, 0.0), (self.progress, 0.0)])
        fill([(self.steps, 0), (self.skipped, 0)])

    def follow(self, progress: float) -> None:
        fill([(self.progress, progress)])

    def normalize(self, x: Tensor) -> Tensor:
        if self.training:
            return scale_and_shift(self._train(x), None, self.bias)
        scale = (self.running_moment.to(x.dtype) + self.eps).sqrt()
        return scale_and_shift(x / scale, self.weight, self.bias)

    def _train(self, x: Tensor) -> Tensor:
        own = batch_mean(x.detach().square())
        self.steps.add_(1)
        late = (self.progress >= self.warmup) & (self.steps > self.window)
        spread = self.moments.sqrt().var()
        push(self.moments, own)
        excess = self.moments.mean(0) - self._geometric_mean()
        skip = late & (excess > spread * self.window).any() & self.skip_outliers
        running = self.running_moment.to(x.dtype)
        self.moments[-1].copy_(torch.where(skip, running, own))
        self.skipped.add_(skip)
        smooth = late & ~skip
        v = torch.where(smooth, self._geometric_mean().to(x.dtype), own)
        scale = (v + self.eps).sqrt()
        ratio = torch.where(smooth, (scale / (running + self.eps).sqrt()).clamp(0.2, 5), 1.0)
        move_average(self.running_moment, v, 1 - self.decay)
        return _unified_norm(x, cast(self.weight, x), scale, ratio, smooth, skip, self)

    def _geometric_mean(self) -> Tensor:
        return self.moments.log().mean(0).exp()

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Number of batches skipped so far."""
        return {"skipped": self.skipped}

    def shown_options(self) -> dict[str, Any]:
        return {"window": self.window, "warmup": self.warmup, "eps": self.eps}
