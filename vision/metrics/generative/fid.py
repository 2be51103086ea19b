"""Fréchet Inception distance: Heusel et al. 2017, https://arxiv.org/abs/1706.08500."""

from __future__ import annotations

from vision.metrics.base import FeatureStatistics, GenerativeMetric, Options, Output, Result
from vision.metrics.frechet import FrechetReference, jackknife_error
from vision.registry import METRICS


@METRICS.register("fid")
class FrechetInceptionDistance(GenerativeMetric):
    """Squared Fréchet distance of Gaussians fitted to the features; ± a jackknife over groups."""

    outputs = (Output("fid", "FID", other="FD", error="fid_error"),)
    needs = frozenset({"moments"})

    @staticmethod
    def compute(real: FeatureStatistics, fake: FeatureStatistics, options: Options) -> Result:
        a, b, groups = real.moments, fake.moments, fake.groups
        assert a is not None and b is not None
        reference = FrechetReference(a.mean, a.cov)
        values = {"fid": reference.distance(b.mean, b.cov)}
        if groups is not None and groups.counts.min() >= 2:
            values["fid_error"] = jackknife_error(
                [reference.distance(rest.mean, rest.cov) for rest in groups.leave_one_out()]
            )
        return Result(values)
