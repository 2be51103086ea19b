"""Mean and covariance of features from running sums: float64, O(D^2) memory, any number of ranks.

torchmetrics' FrechetInceptionDistance keeps such sums too, but of both sets at once, without the
groups that a jackknife needs, and only as private parts of a finished distance; torch-fidelity's
statistics need all features in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What a Fréchet distance needs of a set: `mean` [D] and unbiased `cov` [D, D], float64.

    `count` is the number of samples; None where a file does not say.
    """

    count: int | None
    mean: Array
    cov: Array

    @property
    def dim(self) -> int:
        """Number of features."""
        return len(self.mean)


class GroupedSums(NamedTuple):
    """Sums over G groups of samples: `counts` [G], `totals` [G, D], `products` [G, D, D]."""

    counts: NDArray[np.int64]
    totals: Array
    products: Array

    @property
    def moments(self) -> Moments:
        """Moments of all samples. Raises ValueError for fewer than two: they have no covariance."""
        return self._moments(int(self.counts.sum()), self.totals.sum(0), self.products.sum(0))

    def leave_one_out(self) -> Iterator[Moments]:
        """Moments of all samples but those of one group, for each group in turn."""
        total, product = self.totals.sum(0), self.products.sum(0)
        for count, own_total, own_product in zip(
            self.counts, self.totals, self.products, strict=True
        ):
            rest = int(self.counts.sum() - count)
            yield self._moments(rest, total - own_total, product - own_product)

    @staticmethod
    def _moments(count: int, total: Array, product: Array) -> Moments:
        if count < 2:
            raise ValueError(f"{count} sample(s): a covariance needs at least 2")
        mean = total / count
        return Moments(count, mean, (product - count * np.outer(mean, mean)) / (count - 1))


class MomentSums(Metric):
    """Sums of features and of their products, per group of samples.

    `compute` adds the sums of all ranks, so every sample counts once, whichever rank and batch it
    was in. Each group costs one [D, D] matrix.
    """

    full_state_update = False
    count: Tensor
    total: Tensor
    product: Tensor

    def __init__(self, dim: int, groups: int = 1) -> None:
        super().__init__()
        shapes = {"total": (groups, dim), "product": (groups, dim, dim)}
        self.add_state("count", torch.zeros(groups, dtype=torch.int64), dist_reduce_fx="sum")
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor, group: Tensor | None = None) -> None:
        """Add features [B, D] of samples in the groups `group` [B] (None: all 0); B may be 0."""
        features = features.to(self.total.device, torch.float64)
        if group is None:
            group = torch.zeros(len(features), dtype=torch.int64)
        group = group.to(features.device)
        for index in group.unique().tolist():
            part = features[group == index]
            self.count[index] += len(part)
            self.total[index] += part.sum(0)
            self.product[index].addmm_(part.T, part)

    def compute(self) -> GroupedSums:
        """The sums over all ranks."""
        return GroupedSums(*(x.cpu().numpy() for x in (self.count, self.total, self.product)))
