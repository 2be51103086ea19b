"""Mean and covariance of features, summed as they come: float64, O(D^2) memory, any processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """What a Fréchet distance needs of a set: `mean` [D] and unbiased `cov` [D, D], float64.

    `count` is None where a file does not tell of how many samples they are.
    """

    count: int | None
    mean: Array
    cov: Array

    @property
    def dim(self) -> int:
        """Number of features."""
        return len(self.mean)


class FeatureStatistics(Metric):
    """Sums of features and of their products, per group of samples.

    The sums of all processes are added in `compute`, so a sample counts once, wherever it was
    seen and whatever batch it was in. More than one group costs that many [D, D] sums and allows
    `without`: statistics of all but one group, for a jackknife.
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
        """Add features [B, D], of groups [B] (all of group 0 where None); B may be 0."""
        features = features.to(self.total.device, torch.float64)
        if group is None:
            group = torch.zeros(len(features), dtype=torch.int64)
        group = group.to(features.device)
        for index in group.unique().tolist():
            part = features[group == index]
            self.count[index] += len(part)
            self.total[index] += part.sum(0)
            self.product[index].addmm_(part.T, part)

    def compute(self) -> tuple[Array, Array, Array]:
        """Counts [G], sums [G, D] and sums of products [G, D, D] over all processes."""
        return self.count.cpu().numpy(), self.total.cpu().numpy(), self.product.cpu().numpy()


def combine(
    counts: Array, totals: Array, products: Array, without: int | None = None
) -> Statistics:
    """Statistics of all groups, or of all but the group `without`.

    Raises ValueError for fewer than two samples: they have no covariance.
    """
    count, total, product = int(counts.sum()), totals.sum(0), products.sum(0)
    if without is not None:
        count -= int(counts[without])
        total -= totals[without]
        product -= products[without]
    if count < 2:
        raise ValueError(f"{count} sample(s): a covariance needs at least 2")
    mean = total / count
    return Statistics(count, mean, (product - count * np.outer(mean, mean)) / (count - 1))
