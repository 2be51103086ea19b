"""Online normalization (Online Normalization for Training Neural Networks, 2019,
https://arxiv.org/abs/1905.05894)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm
from vision.norms.statistics import (
    check_fraction,
    gather_over_processes,
    part_of_this_process,
    process_count,
)
from vision.norms.tokens import as_tokens


class _OnlineNorm(torch.autograd.Function):
    """Each sample is normalized by averages over those before it; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: OnlineNorm) -> Tensor:
        variance, mean = torch.var_mean(x, 1, correction=0)  # [B, D], over tokens
        samples = gather_over_processes(torch.stack([mean, variance], 1))  # [N, 2, D]
        keep, gain = norm.forward_decay, 1 - norm.forward_decay
        m, v = norm.running_mean.to(x.dtype), norm.running_var.to(x.dtype)
        before = []
        for mean, variance in samples.unbind():
            before.append(torch.stack([m, (v + norm.eps).sqrt()]))
            step = mean - m
            v = keep * v + gain * variance + keep * gain * step.square()
            m = m + gain * step
        norm.running_mean.copy_(m)
        norm.running_var.copy_(v)
        used = torch.stack(before)  # [N, 2, D]
        center, scale = part_of_this_process(used).unsqueeze(2).unbind(1)  # [B, 1, D] each
        z = (x - center) / scale
        ctx.save_for_backward(z, used[:, 1])
        ctx.norm = norm
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (g,), (z, scale), norm = gradients, ctx.saved_tensors, ctx.norm
        count = process_count()
        parts = torch.stack([g / count, z, g * z / count, z * z]).mean(2)  # [4, B, D]
        samples = gather_over_processes(parts.movedim(1, 0))  # [N, 4, D]
        gain = 1 - norm.backward_decay
        along_z, along_one = norm.along_z.to(z.dtype), norm.along_one.to(z.dtype)
        before = []
        for (g_mean, z_mean, gz_mean, zz_mean), s in zip(samples, scale, strict=True):
            a, b = gain * along_z, gain * along_one
            before.append(torch.stack([a, b]))
            along_z = along_z + gz_mean - a * zz_mean
            along_one = along_one + (g_mean - a * z_mean) / s - b
        norm.along_z.copy_(along_z)
        norm.along_one.copy_(along_one)
        a, b = count * part_of_this_process(torch.stack(before)).unsqueeze(2).transpose(0, 1)
        return (g - a * z) / part_of_this_process(scale).unsqueeze(1) - b, None


# the backward pass changes buffers, which a compiled graph cannot
_online_norm = torch.compiler.disable(_OnlineNorm.apply)


@register_norm("onlinenorm")
class OnlineNorm(Norm):
    """y = clamp(w·z + b, ±clamp), with z = (x − μ)/sqrt(σ² + eps) and averages over past samples.

    With m and s² the mean and variance of a sample's tokens per channel and a the forward decay,
    σ² ← a·σ² + (1−a)·s² + a·(1−a)·(m − μ)² and μ ← a·μ + (1−a)·m after each sample of training.
    The gradient is not the derivative: what is subtracted of g is (1−b)·v·z and, after the division
    by the root, (1−b)·u, where v and u add up, sample after sample, the token means of what is left
    of g along z and along 1. Both, and the clamp behind the affine map, as in the authors' code
    (Cerebras/online-normalization). Evaluation uses μ and σ².

    Samples come one after another in the order of the batch, whatever the number of processes, so
    cost grows with the batch of all processes: a few small operations of `[dim]` per sample. The
    decays are per sample, not per step.

    Args:
        dim: Number of channels.
        forward_decay: a; `running_mean` `[dim]` is μ, from 0, `running_var` `[dim]` σ², from 1.
        backward_decay: b; `along_z` is v, `along_one` u, both `[dim]`, from 0.
        clamp: Largest size of the output.
        eps: Added to the variance.
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
        forward_decay: float = 0.999,
        backward_decay: float = 0.99,
        clamp: float = 5.0,
        eps: float = 1e-5,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        if isinstance(clamp, (str, bool)) or not clamp > 0:
            raise ValueError(f"clamp must be a number above 0, such as 5, got {clamp!r}")
        self.forward_decay = check_fraction("forward_decay", forward_decay, zero=True)
        self.backward_decay = check_fraction("backward_decay", backward_decay, zero=True)
        self.clamp = clamp
        self.eps = check_eps(eps)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.running_mean = self.average(dim, device=device, dtype=dtype)
        self.running_var = self.average(dim, device=device, dtype=dtype)
        self.along_z = self.average(dim, device=device, dtype=dtype)
        self.along_one = self.average(dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.weight, 1.0), (self.bias, 0.0), (self.running_var, 1.0)])
        fill([(self.running_mean, 0.0), (self.along_z, 0.0), (self.along_one, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        if self.training:
            z = _online_norm(as_tokens(x), self).view_as(x)
        else:
            scale = (self.running_var.to(x.dtype) + self.eps).sqrt()
            z = (x - self.running_mean.to(x.dtype)) / scale
        return scale_and_shift(z, self.weight, self.bias).clamp(-self.clamp, self.clamp)

    def shown_options(self) -> dict[str, Any]:
        decays = {"forward_decay": self.forward_decay, "backward_decay": self.backward_decay}
        return decays | {"clamp": self.clamp, "eps": self.eps}
