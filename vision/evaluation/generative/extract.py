"""One pass over a set of images: images to features to sums. Every rank takes part."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torchmetrics import Metric

from vision.environment import first_found
from vision.evaluation.generative.features import Extractor, Features
from vision.evaluation.generative.sources import ImageSource
from vision.metrics.accumulators import (
    KeptFeatures,
    MomentSums,
    PredictionSums,
    random_parts,
    random_subset,
)
from vision.metrics.base import FeatureStatistics, Need, Options


def extract_statistics(
    source: ImageSource,
    extractor: Extractor,
    needs: Collection[Need],
    options: Options,
    number: int | None = None,
    groups: int = 1,
) -> FeatureStatistics:
    """What `needs` names, and always the moments, of `number` images of `source` (None: all).

    `groups`: parts for a jackknife. With torch.distributed set up, each of N ranks reads every N-th
    image, and all return the same. Raises ValueError where the source has fewer images than
    `number`, cannot be read, or the extractor lacks what is needed; FloatingPointError, on all
    ranks, where images or features are not finite.
    """
    start = time.perf_counter()
    chosen = _choose_images(source, number, options.seed)
    count, (rank, world) = len(chosen), _rank_and_world()
    if count < max(world, 2):
        raise ValueError(f"{source.name}: {count} image(s), expected {max(world, 2)} or more")
    group = random_parts(count, groups, options.seed + 1)
    splits = min(options.is_splits, count // 2)
    part = random_parts(count, splits, options.seed)
    keep = random_subset(count, options.max_features, options.seed)
    own = torch.arange(rank, count, world)  # which of the chosen images are this rank's
    sums: dict[Need, Metric] = {}
    done, problem = 0, None
    try:
        for images in source.batches(chosen[own].tolist(), options.batch_size):
            here = own[done : done + len(images)]
            done += len(images)
            features = extractor(images, "spatial_moments" in needs)
            pooled = features.pooled
            _check_finite(pooled, source, chosen[here])
            sums = sums or _accumulators(features, needs, splits, groups)
            sums["moments"].update(pooled, group[here])
            if "spatial_moments" in needs:
                sums["spatial_moments"].update(features.spatial)
            if "predictions" in needs:
                sums["predictions"].update(features.logits, part[here])
            if "features" in needs:
                sums["features"].update(pooled[keep[here].to(pooled.device)], here[keep[here]])
    except FloatingPointError as error:
        problem = str(error)
    problem = first_found(problem)  # the other ranks would wait for this one's sums
    if problem is not None:
        raise FloatingPointError(problem)
    found: dict[Need, Any] = {need: sums[need].compute() for need in sums}  # over all ranks
    spatial = found.get("spatial_moments")
    return FeatureStatistics(
        settings=extractor.settings,
        moments=found["moments"].moments,
        spatial_moments=spatial.moments if spatial is not None else None,
        features=found.get("features"),
        predictions=found.get("predictions"),
        groups=found["moments"] if groups > 1 else None,
        seconds=time.perf_counter() - start,
    )


def _accumulators(
    features: Features, needs: Collection[Need], splits: int, groups: int
) -> dict[Need, Metric]:
    """One per need, for the sizes of these features."""
    found: dict[Need, Metric] = {"moments": MomentSums(features.pooled.shape[1], groups)}
    if "spatial_moments" in needs:
        if features.spatial is None:
            raise ValueError("sfid: only the extractor inception has spatial features")
        found["spatial_moments"] = MomentSums(features.spatial.shape[1])
    if "predictions" in needs:
        if features.logits is None:
            raise ValueError("is: this extractor has no classes; leave `is` out of --metrics")
        found["predictions"] = PredictionSums(features.logits.shape[1], splits)
    if "features" in needs:
        found["features"] = KeptFeatures()
    # accelerators other than CUDA may lack float64
    on_cuda = features.pooled.device.type == "cuda"
    device = features.pooled.device if on_cuda else torch.device("cpu")
    return {need: metric.to(device) for need, metric in found.items()}


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
