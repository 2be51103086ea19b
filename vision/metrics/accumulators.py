"""What is gathered of a set of images, batch by batch and over all ranks.

Moments and predictions are float64 sums, so memory is O(D^2) for any number of images. Neither
library has that for all of them: torchmetrics' FrechetInceptionDistance has no groups for a
jackknife and keeps its sums private; torch-fidelity's statistics, and the Inception scores of both,
need all features or logits in memory.
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
from torchmetrics.utilities import dim_zero_cat

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What a Fréchet distance needs of a set: `mean` [D] and unbiased `cov` [D, D], float64.

    `count` is the number of samples; None where a file does not say.
    """

    count: int | None
    mean: Array
    cov: Array


class GroupedSums(NamedTuple):
    """Sums over G groups of samples: `counts` [G], `totals` [G, D], `products` [G, D, D]."""

    counts: Array
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


class _Sums(Metric):
    """float64 tensors of zeros to add to, which `compute` sees added over all ranks."""

    full_state_update = False

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")


class MomentSums(_Sums):
    """Sums of features and of their products, per group of samples.

    `compute` adds the sums of all ranks, so every sample counts once, whichever rank and batch it
    was in. Each group costs one [D, D] matrix.
    """

    count: Tensor
    total: Tensor
    product: Tensor

    def __init__(self, dim: int, groups: int = 1) -> None:
        super().__init__(count=(groups,), total=(groups, dim), product=(groups, dim, dim))

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


class Predictions(NamedTuple):
    """Sums over S parts of the samples, enough for an Inception score.

    `samples` [S]; `probability` [S, num_classes], the sum of p; `negative_entropy` [S], the sum of
    sum p log p. With q the mean of p, mean KL(p | q) = mean sum p log p - sum q log q.
    """

    samples: Array
    probability: Array
    negative_entropy: Array


class PredictionSums(_Sums):
    """Adds up class probabilities and their entropies in `parts` parts, over all ranks."""

    samples: Tensor
    probability: Tensor
    negative_entropy: Tensor

    def __init__(self, num_classes: int, parts: int) -> None:
        super().__init__(
            samples=(parts,), probability=(parts, num_classes), negative_entropy=(parts,)
        )

    def update(self, logits: Tensor, part: Tensor) -> None:
        """Add logits [B, num_classes] of samples in the parts `part` [B] int64; B may be 0."""
        logits = logits.to(self.samples.device, torch.float64)
        part = part.to(logits.device)
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        self.samples.index_add_(0, part, torch.ones_like(p[:, 0]))
        self.probability.index_add_(0, part, p)
        self.negative_entropy.index_add_(0, part, (p * log_p).sum(1))

    def compute(self) -> Predictions:
        """The sums over all ranks."""
        return Predictions(
            *(x.cpu().numpy() for x in (self.samples, self.probability, self.negative_entropy))
        )


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


def random_parts(count: int, parts: int, seed: int) -> Tensor:
    """The part of each of `count` samples [count] int64: equal parts of a random permutation.

    The same parts as torch-fidelity makes for this seed.
    """
    order = torch.from_numpy(np.random.RandomState(seed).permutation(count))
    result = torch.empty(count, dtype=torch.int64)
    for part in range(parts):
        result[order[part * count // parts : (part + 1) * count // parts]] = part
    return result
