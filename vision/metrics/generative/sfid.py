"""FID of spatial features: Nash et al. 2021, https://arxiv.org/abs/2103.03841.

The features are those of ADM's evaluator: 7 of the channels of Inception's mixed_6, at all
positions.
"""

from __future__ import annotations

from vision.metrics.base import FeatureStatistics, GenerativeMetric, Options, Output, Result
from vision.metrics.frechet import FrechetReference
from vision.registry import METRICS


@METRICS.register("sfid")
class SpatialFrechetInceptionDistance(GenerativeMetric):
    """The Fréchet distance of the spatial features."""

    outputs = (Output("sfid", "sFID", other="sFD"),)
    needs = frozenset({"spatial_moments"})

    @staticmethod
    def compute(real: FeatureStatistics, fake: FeatureStatistics, options: Options) -> Result:
        a, b = real.spatial_moments, fake.spatial_moments
        assert a is not None and b is not None
        return Result({"sfid": FrechetReference(a.mean, a.cov).distance(b.mean, b.cov)})
