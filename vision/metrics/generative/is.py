"""Inception score: Salimans et al. 2016, https://arxiv.org/abs/1606.03498."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from vision.metrics.accumulators import Predictions
from vision.metrics.base import FeatureStatistics, GenerativeMetric, Options, Output, Result
from vision.registry import METRICS


def inception_score(predictions: Predictions) -> tuple[float, float]:
    """exp of the mean KL(p(y|x) | p(y)): mean and standard deviation over the parts."""
    q = predictions.probability / predictions.samples[:, None]  # [S, num_classes]
    negative_entropy = predictions.negative_entropy / predictions.samples
    scores = np.exp(negative_entropy - xlogy(q, q).sum(1))
    return float(scores.mean()), float(scores.std())


@METRICS.register("is")
class InceptionScore(GenerativeMetric):
    """How sure and how varied the predicted classes are; ± the spread over the parts."""

    outputs = (Output("is", "IS", error="is_std"),)
    needs = frozenset({"predictions"})

    @staticmethod
    def compute(real: FeatureStatistics, fake: FeatureStatistics, options: Options) -> Result:
        assert fake.predictions is not None
        mean, deviation = inception_score(fake.predictions)
        parts, warnings = len(fake.predictions.samples), []
        if parts < options.is_splits:
            warnings.append(
                f"is: {parts} parts, for at least two images in each, not {options.is_splits}"
            )
        return Result({"is": mean, "is_std": deviation}, warnings)
