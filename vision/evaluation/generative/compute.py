"""Two sets of images in, every figure asked for out, with all settings that change them."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
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
from vision.evaluation.generative.cache import StatisticsCache
from vision.evaluation.generative.extractors import open_extractor
from vision.evaluation.generative.measure import Pass, Plan, measure
from vision.evaluation.generative.npz import Measured
from vision.evaluation.generative.open import Given, as_given
from vision.metrics.features import Extractor
from vision.metrics.frechet import FrechetReference, jackknife_error, sample_warnings
from vision.metrics.kid import kernel_distance
from vision.metrics.precision_recall import precision_recall

METRICS = ("fid", "is", "kid", "prc", "sfid")


@dataclass(frozen=True)
class Options:
    """Settings of a comparison beside its sets and its extractor."""

    metrics: tuple[str, ...] = ("fid",)
    number: int | None = None  # images of each set; None: all
    batch_size: int = 64
    seed: int = 2020
    confidence_groups: int = 5  # left out one at a time; 0: no standard error
    max_features: int = 10_000  # kept of each set, for kid and prc
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    is_splits: int = 10
    neighbours: int = 3

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            raise ValueError(
                f"metrics = {','.join(unknown)!r}: expected some of {', '.join(METRICS)}"
            )
        if self.confidence_groups == 1 or min(self.confidence_groups, self.batch_size - 1) < 0:
            raise ValueError("confidence_groups: expected 0 or 2 and more; batch_size: 1 or more")


def compute(
    real: str | Path | Tensor | Given,
    fake: str | Path | Tensor | Given,
    extractor: str | Extractor = "inception",
    weights: str | None = None,
    resize: str = "legacy",
    device: str | torch.device | None = None,
    cache: StatisticsCache | None = None,
    quiet: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Compare two sets.

    Args:
        real, fake: As `open_source` reads them, opened, or images [N, 1 or 3, H, W] uint8.
        extractor: A name (`inception`, `dinov2`, `timm:NAME`, `run:PATH`), or an Extractor.
        weights: File of the extractor's weights.
        resize: "legacy" (TensorFlow's, as published FIDs) or "antialias".
        device: Where features are computed; None: the accelerator, where there is one.
        cache: Keeps the statistics of `real` for the next call.
        quiet: Return warnings, but do not raise them through `warnings` too.
        **options: Fields of `Options`.

    Returns:
        Figures (`fid`, `fid_error`, `is`, `is_std`, `kid`, `kid_std`, `precision`, `recall`,
        `sfid`), `labels` (what each is to be called), `settings`, `warnings`, and `seconds`.

    Raises:
        ValueError, FileNotFoundError: what cannot be read, found or compared; one line.
    """
    start = time.perf_counter()
    chosen = Options(**options)
    real, fake = as_given(real), as_given(fake)
    if isinstance(extractor, str):
        extractor = open_extractor(extractor, weights, resize)
    extractor.model.to(choose_device(device))
    real_pass = _reference(real, extractor, chosen, cache)
    fake_pass = _side(fake, extractor, _plan(chosen, fake=True), chosen.metrics)
    result: dict[str, Any] = {"warnings": _warnings(extractor, real_pass, fake_pass)}
    root_seconds = _figures(result, real_pass, fake_pass, chosen)
    for line in () if quiet else result["warnings"]:
        warnings.warn(line, stacklevel=2)
    total = time.perf_counter() - start
    names = [key for key in result if isinstance(result[key], float)]
    result["labels"] = {key: extractor.label(key) for key in names}
    result["settings"] = _settings(real, fake, real_pass, fake_pass, extractor, chosen)
    result["seconds"] = {
        "real": real_pass.seconds,
        "fake": fake_pass.seconds,
        "matrix_root": root_seconds,
        "total": total,
        "matrix_root_share": root_seconds / total,
    }
    return result


def measure_real(
    real: Given, extractor: Extractor, options: Options, cache: StatisticsCache | None = None
) -> Given:
    """`real` measured once, to be compared with many sets."""
    return Given(real.name, None, _reference(real, extractor, options, cache).measured)


def _plan(options: Options, fake: bool) -> Plan:
    wanted = set(options.metrics)
    return Plan(
        spatial="sfid" in wanted,
        score_splits=options.is_splits if fake and "is" in wanted else 0,
        features=options.max_features if wanted & {"kid", "prc"} else 0,
        groups=max(1, options.confidence_groups) if fake else 1,
        number=options.number,
        batch_size=options.batch_size,
        seed=options.seed,
    )


def _reference(
    real: Given, extractor: Extractor, options: Options, cache: StatisticsCache | None
) -> Pass:
    plan = _plan(options, fake=False)
    if cache is None or real.source is None:
        return _side(real, extractor, plan, options.metrics)
    key = cache.key(real.source, extractor, plan)
    found = cache.read(key)
    if found is not None:
        return _known(Given(real.name, None, found), extractor)
    result = _side(real, extractor, plan, options.metrics)
    cache.write(key, result.measured)
    return result


def _side(given: Given, extractor: Extractor, plan: Plan, metrics: Sequence[str]) -> Pass:
    """A pass over one set, or what its file already knows."""
    lacking = [] if given.measured is None else _lacking(given.measured, plan)
    if given.measured is not None and not lacking:
        return _known(given, extractor)
    if given.source is None:
        raise ValueError(
            f"{given.name}: saved statistics without {', '.join(lacking)}, which "
            f"--metrics {','.join(metrics)} needs; name the images instead"
        )
    return measure(given.source, extractor, plan)


def _lacking(measured: Measured, plan: Plan) -> list[str]:
    parts = {
        "mu and sigma": (True, measured.statistics),
        "mu_s and sigma_s": (plan.spatial, measured.spatial),
        "features": (plan.features > 0, measured.features),
        "predictions": (plan.score_splits > 0, None),
    }
    return [name for name, (wanted, value) in parts.items() if wanted and value is None]


def _known(given: Given, extractor: Extractor) -> Pass:
    measured = given.measured
    assert measured is not None
    mine, theirs = extractor.settings, measured.settings
    if theirs is None:
        # the published files: of the FID Inception, with TensorFlow's resize
        theirs = {"extractor": "inception", "resize": "legacy"}
    for key in theirs.keys() | (mine.keys() if measured.settings is not None else set()):
        if _plain(mine.get(key)) != _plain(theirs.get(key)):
            raise ValueError(
                f"{given.name}: its statistics have {key} = {theirs.get(key)!r}, this call "
                f"{mine.get(key)!r}; compute both with the same settings"
            )
    count = measured.statistics.count if measured.statistics is not None else None

    def without(group: int) -> Any:
        raise AssertionError("saved statistics have one group")

    return Pass(measured, count or 0, None, 1, without, 0.0)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _warnings(extractor: Extractor, real: Pass, fake: Pass) -> list[str]:
    found = []
    if not extractor.published:
        found.append(
            "the weights are not torch-fidelity's published file: not comparable with other FIDs"
        )
    for label, side in (("real", real), ("fake", fake)):
        if side.measured.statistics is not None:
            found += sample_warnings(label, side.measured.statistics)
    return found


def _figures(result: dict[str, Any], real: Pass, fake: Pass, options: Options) -> float:
    """Put the figures into `result`; returns seconds spent on matrix roots."""
    spent = 0.0
    if "fid" in options.metrics:
        start = time.perf_counter()
        a, b = real.measured.statistics, fake.measured.statistics
        assert a is not None and b is not None
        reference = FrechetReference(a.mean, a.cov)
        result["fid"] = reference.distance(b.mean, b.cov)
        if fake.groups > 1 and fake.count >= 2 * fake.groups:
            parts = [fake.without(group) for group in range(fake.groups)]
            result["fid_error"] = jackknife_error(
                [reference.distance(part.mean, part.cov) for part in parts]
            )
        spent += time.perf_counter() - start
    if "sfid" in options.metrics:
        start = time.perf_counter()
        a, b = real.measured.spatial, fake.measured.spatial
        assert a is not None and b is not None
        result["sfid"] = FrechetReference(a.mean, a.cov).distance(b.mean, b.cov)
        spent += time.perf_counter() - start
    if fake.score is not None:
        result["is"], result["is_std"] = fake.score
    x, y = fake.measured.features, real.measured.features
    if "kid" in options.metrics and x is not None and y is not None:
        size = min(options.kid_subset_size, len(x), len(y))
        if size < options.kid_subset_size:
            result["warnings"].append(
                f"kid: subsets of {size}, all there is, not of {options.kid_subset_size}"
            )
        result["kid"], result["kid_std"] = kernel_distance(
            x, y, options.kid_subsets, size, options.seed
        )
    if "prc" in options.metrics and x is not None and y is not None:
        result["precision"], result["recall"] = precision_recall(x, y, options.neighbours)
    return spent


def _settings(
    real: Given, fake: Given, a: Pass, b: Pass, extractor: Extractor, options: Options
) -> dict[str, Any]:
    versions = {m.__name__: m.__version__ for m in (torch, torchmetrics, torch_fidelity, timm)}
    known = [p.measured for p in (a, b)]
    return {
        **extractor.settings,
        "real": {**real.describe(), "count": a.count, "kept": _length(known[0].features)},
        "fake": {**fake.describe(), "count": b.count, "kept": _length(known[1].features)},
        **vars(options),
        "versions": {**versions, "numpy": np.__version__, "scipy": scipy.__version__},
    }


def _length(features: Any) -> int | None:
    return None if features is None else len(features)
