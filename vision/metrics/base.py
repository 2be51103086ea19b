"""What a generative metric is: a function of two sets of images, and what it needs to know of them.

Each is a file NAME.py in `vision/metrics/generative`, with a class `@METRICS.register("NAME")`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from vision.metrics.accumulators import GroupedSums, Moments, Predictions
from vision.registry import METRICS

# moments: of the pooled features. spatial_moments: of the spatial features, which only the FID
# Inception has. features: at most `max_features` of the features themselves. predictions: of the
# generated images only.
Need = Literal["moments", "spatial_moments", "features", "predictions"]


@dataclass(frozen=True)
class FeatureStatistics:
    """What is known of the features of a set of images; None: not gathered.

    `settings` says how the features were computed; None where a file does not say. `groups`: the
    sums that `moments` are of, by groups for a jackknife.
    """

    settings: dict[str, Any] | None
    moments: Moments | None = None
    spatial_moments: Moments | None = None
    features: Tensor | None = None  # [N, D] float32
    predictions: Predictions | None = None
    groups: GroupedSums | None = None
    seconds: float = 0.0  # that it took to compute them

    @property
    def count(self) -> int | None:
        """Number of images; None where a file does not say."""
        return self.moments.count if self.moments is not None else None


@dataclass(frozen=True)
class Options:
    """Settings of a comparison besides its image sets and its extractor."""

    metrics: tuple[str, ...] = ("fid",)
    number: int | None = None  # generated images; None: all
    real_number: int | None = None  # real images; None: all
    batch_size: int = 64
    seed: int = 2020  # of random subsets
    confidence_groups: int = 5  # jackknife groups of the generated images; 0: no standard error
    max_features: int = 10_000  # features kept of each set, for kid and prc
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    is_splits: int = 10
    neighbors: int = 3  # of precision and recall

    def __post_init__(self) -> None:
        known = METRICS.names()
        unknown = [name for name in self.metrics if name not in known]
        if unknown or not self.metrics:
            raise ValueError(
                f"metrics = {','.join(unknown)!r}: expected some of {', '.join(known)}"
            )
        groups = self.confidence_groups
        if groups == 1 or groups < 0:
            raise ValueError(f"confidence_groups = {groups}: expected 0, or 2 or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size}: expected 1 or more")


@dataclass(frozen=True)
class Output:
    """How one number of a metric is shown.

    `key`: what it is called in results and logs; `label`: in tables, with the FID Inception.
    `other`: in tables with any other extractor, whose numbers must not be mistaken for it. `error`:
    the key of its standard error or standard deviation.
    """

    key: str
    label: str
    other: str | None = None  # None: `label`
    error: str | None = None

    def logged(self, is_fid_inception: bool) -> dict[str, str]:
        """What `key` and `error` are called in the metrics of a run: `fd`, `fd_error` for other
        features than the FID Inception's."""
        name = self.other.lower() if self.other and not is_fid_inception else self.key
        keys = [self.key] if self.error is None else [self.key, self.error]
        return {key: name + key.removeprefix(self.key) for key in keys}


@dataclass(frozen=True)
class Result:
    """The numbers of a metric by key, and what the reader must know about them."""

    values: dict[str, float]
    warnings: list[str] = field(default_factory=list)


class GenerativeMetric(ABC):
    """A metric of generated images; never instantiated.

    `outputs`: what `compute` returns, without the errors. `needs`: what must be known of the sets.
    """

    outputs: ClassVar[tuple[Output, ...]]
    needs: ClassVar[frozenset[Need]]

    @staticmethod
    @abstractmethod
    def compute(real: FeatureStatistics, fake: FeatureStatistics, options: Options) -> Result:
        """The metric of the generated images `fake` against the images `real`."""
