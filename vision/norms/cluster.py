"""Cluster-based normalization (Faye et al., https://github.com/b-faye/cluster-based-norm)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.norms.base import Norm, check_eps, fill, scale_and_shift
from vision.norms.registry import register_norm


@register_norm("cluster")
class ClusterNorm(Norm):
    """y = w·Σ_k τ_k/√π_k·(x − μ_k)/sqrt(σ²_k + eps) + b, elementwise, with K learned clusters.

    τ_k is the posterior of cluster k, given the value x of a channel, in its mixture of K
    Gaussians with means μ_k, variances σ²_k + eps and weights π_k. π = softmax(`prior`), and
    σ² = softplus(`variance`), as in the authors' code, where gradients train them too.

    Ours: their code also standardizes by moments of the batch weighted with τ, and its posterior
    lacks the Gaussians' 1/σ_k. Means start evenly over [−1, 1] (there at random in it), priors
    equal. The output grows with x, and it takes K times the memory of an elementwise norm.

    Args:
        dim: Number of channels.
        num_clusters: K, at least 1.
        eps: Added to the variance.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0. `mean` and `variance`
            `[K, dim]` and `prior` `[K]` are always there. None of them decays.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_clusters: int = 3,
        eps: float = 1e-3,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        if not isinstance(num_clusters, int) or num_clusters < 1:
            raise ValueError(f"num_clusters must be an integer of at least 1, got {num_clusters!r}")
        self.num_clusters = num_clusters
        self.eps = check_eps(eps)
        self.mean = self.matrix(num_clusters, dim, device, dtype)
        self.variance = self.matrix(num_clusters, dim, device, dtype)
        self.prior = self.vector(num_clusters, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for k, mean in enumerate(self.mean):
            # apart from each other, as equal clusters would stay equal
            nn.init.constant_(mean, 2 * (k + 0.5) / self.num_clusters - 1)
        fill([(self.variance, 0.0), (self.prior, 0.0), (self.weight, 1.0), (self.bias, 0.0)])

    def normalize(self, x: Tensor) -> Tensor:
        std = (F.softplus(self.variance.to(x.dtype)) + self.eps).sqrt()  # [K, D]
        log_prior = self.prior.to(x.dtype).log_softmax(0).unsqueeze(-1)  # [K, 1]
        z = (x.unsqueeze(-2) - self.mean.to(x.dtype)) / std  # [..., K, D]
        posterior = torch.softmax(log_prior - std.log() - z.square() / 2, dim=-2)
        y = (posterior * z * (-log_prior / 2).exp()).sum(-2)
        return scale_and_shift(y, self.weight, self.bias)

    def shown_options(self) -> dict[str, Any]:
        return {"num_clusters": self.num_clusters, "eps": self.eps}
