"""Kernel Inception distance: Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401."""

from __future__ import annotations

from torch import Tensor
from torch_fidelity import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD
from torch_fidelity.metric_kid import kid_features_to_metric

from vision.metrics.base import FeatureStatistics, GenerativeMetric, Options, Output, Result
from vision.registry import METRICS


def kernel_distance(
    fake: Tensor, real: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased MMD^2 over random subsets, in float64.

    The kernel is (x.y / D + 1)^3 on features [N, D]. Raises ValueError where a set is smaller than
    a subset.
    """
    least = min(len(fake), len(real))
    if not 2 <= subset_size <= least:
        raise ValueError(f"KID subsets of {subset_size} samples: expected 2 to {least}")
    found = kid_features_to_metric(
        fake.double(),
        real.double(),
        kid_subsets=subsets,
        kid_subset_size=subset_size,
        rng_seed=seed,
        verbose=False,
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


@METRICS.register("kid")
class KernelInceptionDistance(GenerativeMetric):
    """Unbiased squared MMD; ± the spread over the subsets."""

    outputs = (Output("kid", "KID", other="KD", error="kid_std"),)
    needs = frozenset({"features"})

    @staticmethod
    def compute(real: FeatureStatistics, fake: FeatureStatistics, options: Options) -> Result:
        assert real.features is not None and fake.features is not None
        size = min(options.kid_subset_size, len(fake.features), len(real.features))
        warnings = []
        if size < options.kid_subset_size:
            warnings.append(
                f"kid: subsets of {size} images, all there are, not of {options.kid_subset_size}"
            )
        mean, deviation = kernel_distance(
            fake.features, real.features, options.kid_subsets, size, options.seed
        )
        return Result({"kid": mean, "kid_std": deviation}, warnings)
