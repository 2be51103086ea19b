"""One pass over a source: images to features to sums. Every process takes its share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from vision.evaluation.generative.npz import Measured
from vision.evaluation.generative.sources import Source
from vision.metrics.feature_sample import FeatureSubset, chosen
from vision.metrics.features import Extractor, Features
from vision.metrics.inception_score import InceptionScore, split_of
from vision.metrics.moments import FeatureStatistics, Statistics, combine


@dataclass(frozen=True)
class Plan:
    """What to gather in a pass."""

    spatial: bool = False
    score_splits: int = 0  # parts of the Inception score; 0: none
    features: int = 0  # most features to keep; 0: none
    groups: int = 1  # parts for a jackknife
    number: int | None = None  # of images; None: all
    batch_size: int = 64
    seed: int = 2020


@dataclass(frozen=True)
class Pass:
    """What a pass gave; `without[g]` makes the statistics of all but one group."""

    measured: Measured
    count: int
    score: tuple[float, float] | None
    groups: int
    without: Callable[[int], Statistics]
    seconds: float


class _Sums:
    """The metrics of one pass, made when the first features tell their sizes."""

    def __init__(self, plan: Plan, count: int) -> None:
        self.plan = plan
        self.group = _part(count, plan.groups, plan.seed + 1)
        self.split = _part(count, plan.score_splits or 1, plan.seed, split_of)
        self.keep = torch.from_numpy(chosen(count, plan.features or 1, plan.seed))
        self.statistics: FeatureStatistics | None = None
        self.spatial: FeatureStatistics | None = None
        self.score: InceptionScore | None = None
        self.subset = FeatureSubset()

    def add(self, features: Features, positions: Tensor) -> None:
        """Count a batch; `positions` [B]: places in the order of the whole set."""
        plan, pooled = self.plan, features.pooled
        device = pooled.device if pooled.device.type == "cuda" else torch.device("cpu")
        if self.statistics is None:
            self.statistics = FeatureStatistics(pooled.shape[1], plan.groups).to(device)
        self.statistics.update(pooled, self.group[positions])
        if plan.spatial:
            if features.spatial is None:
                raise ValueError("sfid: only the extractor inception has spatial features")
            if self.spatial is None:
                self.spatial = FeatureStatistics(features.spatial.shape[1]).to(device)
            self.spatial.update(features.spatial)
        if plan.score_splits:
            if features.logits is None:
                raise ValueError("is: this extractor has no classes; leave `is` out of --metrics")
            if self.score is None:
                classes = features.logits.shape[1]
                self.score = InceptionScore(classes, plan.score_splits).to(device)
            self.score.update(features.logits, self.split[positions])
        if plan.features:
            self.subset.to(device)
            kept = self.keep[positions]
            self.subset.update(pooled[kept.to(pooled.device)], positions[kept])


def measure(source: Source, extractor: Extractor, plan: Plan) -> Pass:
    """Go over `source` once.

    With torch.distributed set up, each process takes every n-th image and all return the same.
    Raises ValueError where the source has fewer images than `plan.number`, or cannot be read.
    """
    start = time.perf_counter()
    numbers = selected(source, plan.number, plan.seed)
    rank, world = _rank_and_world()
    own = np.arange(rank, len(numbers), world)
    if len(numbers) < max(world, 2):
        raise ValueError(
            f"{source.name}: {len(numbers)} image(s), expected {max(world, 2)} or more"
        )
    sums = _Sums(plan, len(numbers))
    done = 0
    for images in source.batches(numbers[own].tolist(), plan.batch_size):
        positions = torch.from_numpy(own[done : done + len(images)])
        features = extractor(images, plan.spatial)
        _check_finite(features.pooled, source, numbers[positions.numpy()])
        sums.add(features, positions)
        done += len(images)
    return _finish(sums, extractor, len(numbers), start)


def selected(source: Source, number: int | None, seed: int) -> NDArray[np.int64]:
    """Numbers of the images to use, ascending: all, or a random subset by the seed."""
    count = len(source)
    if number is None or number == count:
        return np.arange(count)
    if not 2 <= number <= count:
        raise ValueError(f"number = {number}: expected 2 to {count}, the images of {source.name}")
    drawn = np.random.default_rng(seed).choice(count, number, replace=False)
    return np.sort(drawn)


def _finish(sums: _Sums, extractor: Extractor, count: int, start: float) -> Pass:
    plan = sums.plan
    assert sums.statistics is not None, "every process has seen an image"
    parts = sums.statistics.compute()
    measured = Measured(
        settings=extractor.settings,
        statistics=combine(*parts),
        spatial=combine(*sums.spatial.compute()) if sums.spatial is not None else None,
        features=sums.subset.compute() if plan.features else None,
    )
    score = sums.score.compute() if sums.score is not None else None

    def without(group: int) -> Statistics:
        return combine(*parts, without=group)

    return Pass(measured, count, score, plan.groups, without, time.perf_counter() - start)


def _part(
    count: int,
    parts: int,
    seed: int,
    cut: Callable[[int, int, int], NDArray[np.int64]] = split_of,
) -> Tensor:
    return torch.from_numpy(cut(count, parts, seed))


def _check_finite(features: Tensor, source: Source, numbers: NDArray[np.int64]) -> None:
    bad = ~torch.isfinite(features).all(1)
    if bad.any():
        number = int(numbers[int(bad.nonzero()[0])])
        raise ValueError(
            f"{source.name}: the features of image {number} are not finite; look at the image and "
            "at the weights of the extractor"
        )


def _rank_and_world() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
