"""One pass over a set of images: images to features to sums. Every rank takes part."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torchmetrics import Metric

from vision.evaluation.generative.features import Extractor, Features
from vision.evaluation.generative.sources import ImageSource
from vision.metrics.base import FeatureStatistics, Need, Options
from vision.metrics.kept_features import KeptFeatures, random_subset
from vision.metrics.moments import MomentSums
from vision.metrics.predictions import PredictionSums, random_parts


def extract_statistics(
    source: ImageSource,
    extractor: Extractor,
    needs: Collection[Need],
    options: Options,
    groups: int = 1,
) -> FeatureStatistics:
    """What `needs` names, and always the moments, of the images of `source`.

    `groups`: parts for a jackknife. With torch.distributed set up, each of N ranks reads every N-th
    image, and all return the same. Raises ValueError where the source has fewer images than
    `options.number`, cannot be read, or the extractor lacks what is needed.
    """
    start = time.perf_counter()
    chosen = _choose_images(source, options.number, options.seed)
    rank, world = _rank_and_world()
    if len(chosen) < max(world, 2):
        raise ValueError(f"{source.name}: {len(chosen)} image(s), expected {max(world, 2)} or more")
    positions = torch.arange(rank, len(chosen), world)  # of this rank's images among the chosen
    sums = _Sums(needs, options, groups, len(chosen))
    done = 0
    for images in source.batches(chosen[positions].tolist(), options.batch_size):
        here = positions[done : done + len(images)]
        features = extractor(images, "spatial_moments" in needs)
        _check_finite(features.pooled, source, chosen[here])
        sums.add(features, here)
        done += len(images)
    return sums.compute(extractor, start)


class _Sums:
    """The accumulators of a pass, each made when the first features show its size."""

    def __init__(self, needs: Collection[Need], options: Options, groups: int, count: int) -> None:
        self.needs = needs
        self.groups = groups
        self.parts = options.is_splits
        self.group_of = random_parts(count, groups, options.seed + 1)
        self.part_of = random_parts(count, self.parts, options.seed)
        self.keep = random_subset(count, options.max_features, options.seed)
        self.accumulators: dict[Need, Metric] = {}

    def add(self, features: Features, positions: Tensor) -> None:
        """Add a batch; `positions` [B]: where its images are in the whole set."""
        pooled = features.pooled
        self._update(
            "moments",
            lambda dim: MomentSums(dim, self.groups),
            pooled,
            self.group_of[positions],
        )
        if "spatial_moments" in self.needs:
            if features.spatial is None:
                raise ValueError("sfid: only the extractor inception has spatial features")
            self._update("spatial_moments", MomentSums, features.spatial)
        if "predictions" in self.needs:
            if features.logits is None:
                raise ValueError("is: this extractor has no classes; leave `is` out of --metrics")
            self._update(
                "predictions",
                lambda classes: PredictionSums(classes, self.parts),
                features.logits,
                self.part_of[positions],
            )
        if "features" in self.needs:
            kept = self.keep[positions]
            self._update(
                "features",
                lambda dim: KeptFeatures(),
                pooled[kept.to(pooled.device)],
                positions[kept],
            )

    def _update(
        self, need: Need, create: Callable[[int], Metric], values: Tensor, *where: Tensor
    ) -> None:
        if need not in self.accumulators:
            # other accelerators than CUDA may lack float64
            device = values.device if values.device.type == "cuda" else torch.device("cpu")
            self.accumulators[need] = create(values.shape[1]).to(device)
        self.accumulators[need].update(values, *where)

    def compute(self, extractor: Extractor, start: float) -> FeatureStatistics:
        """The statistics over all ranks, all of which have to call this."""
        found = {need: metric.compute() for need, metric in self.accumulators.items()}
        spatial = found.get("spatial_moments")
        return FeatureStatistics(
            settings=extractor.settings,
            moments=found["moments"].moments,
            spatial_moments=spatial.moments if spatial is not None else None,
            features=found.get("features"),
            predictions=found.get("predictions"),
            groups=found["moments"],
            seconds=time.perf_counter() - start,
        )


def _choose_images(source: ImageSource, number: int | None, seed: int) -> NDArray[np.int64]:
    """Indices of the images to use, ascending: all, or a random subset drawn by `seed`."""
    count = len(source)
    if number is None or number == count:
        return np.arange(count)
    if not 2 <= number <= count:
        raise ValueError(f"number = {number}: expected 2 to {count}, the images of {source.name}")
    return np.sort(np.random.default_rng(seed).choice(count, number, replace=False))


def _check_finite(features: Tensor, source: ImageSource, indices: NDArray[np.int64]) -> None:
    bad = ~torch.isfinite(features).all(1)
    if bad.any():
        index = indices[int(bad.nonzero()[0])]
        raise ValueError(
            f"{source.name}: the features of image {index} are not finite; look at the image and "
            "at the weights of the extractor"
        )


def _rank_and_world() -> tuple[int, int]:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
