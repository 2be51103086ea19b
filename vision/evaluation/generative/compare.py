"""Two sets of images in, every metric asked for out, with all settings that it depends on."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import timm
import torch
import torch_fidelity
import torchmetrics
from torch import Tensor

from vision.environment import choose_device
from vision.errors import disk_problem
from vision.evaluation.generative.extract import extract_statistics
from vision.evaluation.generative.extractors import create_extractor
from vision.evaluation.generative.features import Extractor
from vision.evaluation.generative.image_set import ImageSet, as_image_set
from vision.evaluation.generative.saved_statistics import (
    StatisticsCache,
    read_statistics,
    write_statistics,
)
from vision.metrics.base import FeatureStatistics, Need, Options, Output
from vision.metrics.frechet import sample_warnings
from vision.notices import notice
from vision.registry import METRICS

_IN_FILES: dict[Need, str] = {"moments": "mu and sigma", "spatial_moments": "mu_s and sigma_s"}


def compare_image_sets(
    real: str | Path | Tensor | ImageSet,
    fake: str | Path | Tensor | ImageSet,
    extractor: str | Extractor = "inception",
    device: str | torch.device | None = None,
    cache: StatisticsCache | None = None,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Metrics of the generated images `fake` against the images `real`.

    Args:
        real, fake: What `open_image_set` opens, an ImageSet, or images [N, 1 or 3, H, W] uint8.
        extractor: What `create_extractor` returns, or its name (`inception`, `dinov2`, `timm:NAME`,
            `run:PATH`).
        device: Where features are computed; None: the accelerator, if there is one.
        cache: Keeps the statistics of `real` for the next call.
        quiet: Return warnings without raising them through `warnings` too.
        **options: Fields of `vision.metrics.base.Options`.

    Returns:
        The values and errors of the metrics by key (`fid`, `fid_error`, `is`, `is_std`, ...),
        `labels` (what to call each), `settings`, `warnings`, and `seconds`.

    Raises:
        ValueError, FileNotFoundError: what cannot be read, found or compared; one line.
    """
    start = time.perf_counter()
    chosen = Options(**options)
    real, fake = as_image_set(real), as_image_set(fake)
    if isinstance(extractor, str):
        extractor = create_extractor(extractor)
    extractor.model.to(choose_device(device))
    a = _real_statistics(real, extractor, chosen, cache)
    needs = _needs(chosen, fake=True)
    groups = max(1, chosen.confidence_groups)
    b = _statistics(fake, extractor, needs, chosen, chosen.number, groups)
    result: dict[str, Any] = {"warnings": _warnings(extractor, a, b), "labels": {}}
    seconds = {}
    for name in chosen.metrics:
        metric, begin = METRICS.get(name), time.perf_counter()
        found = metric.compute(a, b, chosen)
        seconds[name] = time.perf_counter() - begin
        _check_finite(found.values)
        result |= found.values
        result["warnings"] += found.warnings
        result["labels"] |= {key: extractor.label(Output(key, key)) for key in found.values}
        result["labels"] |= {output.key: extractor.label(output) for output in metric.outputs}
    for line in () if quiet else result["warnings"]:
        warnings.warn(line, stacklevel=2)
    result["settings"] = _settings({"real": (real, a), "fake": (fake, b)}, extractor, chosen)
    total = time.perf_counter() - start
    result["seconds"] = {"real": a.seconds, "fake": b.seconds, "metrics": seconds, "total": total}
    return result


def with_statistics(
    real: ImageSet, extractor: Extractor, options: Options, cache: StatisticsCache | None = None
) -> ImageSet:
    """`real` with its statistics, to be compared with many sets."""
    return dataclasses.replace(real, statistics=_real_statistics(real, extractor, options, cache))


def _needs(options: Options, fake: bool) -> frozenset[Need]:
    found = frozenset[Need]({"moments"}).union(*(METRICS.get(m).needs for m in options.metrics))
    return found if fake else found - {"predictions"}


def _real_statistics(
    real: ImageSet, extractor: Extractor, options: Options, cache: StatisticsCache | None
) -> FeatureStatistics:
    needs = _needs(options, fake=False)
    file = None
    if cache is not None and real.source is not None:
        file = cache.file(real.source, extractor, needs, options)
    if file is not None and file.is_file():
        return read_statistics(file)
    found = _statistics(real, extractor, needs, options, options.real_number)
    if file is not None:
        try:
            write_statistics(file, found)
        except OSError as error:
            notice(f"the statistics of {real.name} are not kept: {disk_problem(error) or error}")
    return found


def _statistics(
    images: ImageSet,
    extractor: Extractor,
    needs: frozenset[Need],
    options: Options,
    number: int | None,
    groups: int = 1,
) -> FeatureStatistics:
    """From the set's file where it has what is needed, the rest from a pass over its images."""
    known, source = images.statistics, images.source
    if known is None:
        assert source is not None, "a set has images or statistics"
        return extract_statistics(source, extractor, needs, options, number, groups)
    lacking = frozenset(need for need in needs if getattr(known, need) is None)
    names = " and ".join(_IN_FILES.get(need, need) for need in sorted(lacking))
    if lacking and source is None:
        raise ValueError(
            f"{images.name}: saved statistics without {names}, which "
            f"--metrics {','.join(options.metrics)} needs; name the images instead"
        )
    _check_same_settings(images.name, known.settings, extractor.settings)
    if not lacking:
        if number is not None:
            notice(f"{images.name}: saved statistics are of all their images, not of {number}")
        return known
    assert source is not None
    drawn = None if number is None else min(number, len(source))
    found = extract_statistics(source, extractor, lacking, options, drawn)
    count = "?" if known.count is None else f"{known.count:,}"
    notice(
        f"{images.name}: saved statistics (of {count} images), and {names} of "
        f"{len(source) if drawn is None else drawn:,} images in the file"
    )
    return dataclasses.replace(
        found,
        moments=known.moments,
        spatial_moments=known.spatial_moments or found.spatial_moments,
        features=found.features if known.features is None else known.features,
        groups=None,
    )


def _check_same_settings(name: str, theirs: dict[str, Any] | None, ours: dict[str, Any]) -> None:
    ours = json.loads(json.dumps(ours))  # as in a file
    if theirs is None:
        # published files are of the FID Inception with TensorFlow's resize; no hash is known
        theirs = {"extractor": "inception", "resize": "legacy"}
        ours = {key: ours.get(key) for key in theirs}
    for key in theirs.keys() | ours.keys():
        if ours.get(key) != theirs.get(key):
            raise ValueError(
                f"{name}: its statistics have {key} = {theirs.get(key)!r}, this call "
                f"{ours.get(key)!r}; compute both with the same settings"
            )


def _check_finite(values: dict[str, float]) -> None:
    for key, value in values.items():
        if not math.isfinite(value):
            raise ValueError(
                f"{key} is {value}: too few images, or features whose sums overflow; give more "
                "images, or leave the metric out of --metrics"
            )


def _warnings(extractor: Extractor, real: FeatureStatistics, fake: FeatureStatistics) -> list[str]:
    found = []
    if not extractor.published:
        found.append(
            "the weights are not torch-fidelity's published file: not comparable with other FIDs"
        )
    for label, moments in (("real", real.moments), ("fake", fake.moments)):
        if moments is not None:
            found += sample_warnings(label, moments)
    return found


def _settings(
    sets: dict[str, tuple[ImageSet, FeatureStatistics]], extractor: Extractor, options: Options
) -> dict[str, Any]:
    """Everything that the metrics depend on, and how many images and features they are of."""
    found = dict(extractor.settings)
    for key, (images, known) in sets.items():
        kept = len(known.features) if known.features is not None else None
        found[key] = {**images.describe(), "count": known.count, "kept": kept}
    packages = (torch, torchmetrics, torch_fidelity, timm, np, scipy)
    versions = {package.__name__: package.__version__ for package in packages}
    return {**found, **vars(options), "versions": versions}
