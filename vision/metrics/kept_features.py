"""Features of a bounded sample of the images, for metrics that need the features themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class KeptFeatures(Metric):
    """Keeps features with the indices of their images; `compute` returns those of all ranks."""

    full_state_update = False
    features: list[Tensor]
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("features", "indices"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Keep features [B, D] of the images `indices` [B]; B may be 0."""
        self.features.append(features.to(self.device, torch.float32))
        self.indices.append(indices.to(self.device))

    def compute(self) -> Tensor:
        """Features [N, D] float32 in the order of the images, on the CPU."""
        return dim_zero_cat(self.features)[dim_zero_cat(self.indices).argsort()].cpu()


def random_subset(count: int, size: int, seed: int) -> Tensor:
    """A mask [count] bool that is true for `size` images drawn by `seed`, or for all if fewer."""
    keep = np.ones(count, bool)
    if count > size:
        keep[:] = False
        keep[np.random.default_rng(seed).choice(count, size, replace=False)] = True
    return torch.from_numpy(keep)
