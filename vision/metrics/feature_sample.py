"""Features of a bounded subset of the samples, for the figures that need features themselves."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric


class FeatureSubset(Metric):
    """Keeps features with their samples' numbers; `compute` has all processes', in order."""

    full_state_update = False
    features: list[Tensor]
    indices: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("features", "indices"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, features: Tensor, indices: Tensor) -> None:
        """Keep features [B, D] of the samples `indices` [B]; B may be 0."""
        self.features.append(features.to(self.device, torch.float32))
        self.indices.append(indices.to(self.device))

    def compute(self) -> Tensor:
        """Features [N, D] float32 in the order of the samples' numbers, on the CPU."""
        # after a synchronisation the lists are tensors
        features, indices = (
            value if isinstance(value, Tensor) else torch.cat(value)
            for value in (self.features, self.indices)
        )
        return features[indices.argsort()].cpu()


def chosen(count: int, most: int, seed: int) -> NDArray[np.bool_]:
    """Which of `count` samples to keep: all, or `most` of them by the seed; [count] bool."""
    keep = np.ones(count, bool)
    if count > most:
        keep[:] = False
        keep[np.random.default_rng(seed).choice(count, most, replace=False)] = True
    return keep
