"""Improved precision and recall: Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991."""

from __future__ import annotations

from torch import Tensor
from torch_fidelity import KEY_METRIC_PRECISION, KEY_METRIC_RECALL
from torch_fidelity.metric_prc import prc_features_to_metric

from vision.metrics.base import FeatureStatistics, GenerativeMetric, Options, Output, Result
from vision.registry import METRICS


def precision_recall(fake: Tensor, real: Tensor, neighbors: int = 3) -> tuple[float, float]:
    """Fraction of generated samples inside the real manifold, and of real ones inside the other.

    A sample is inside a set where it is as near to one of its samples as that one's `neighbors`-th
    nearest neighbor. Features [N, D] float32. Raises ValueError for sets of no more than
    `neighbors` samples.
    """
    for name, features in (("fake", fake), ("real", real)):
        if len(features) <= neighbors:
            raise ValueError(f"{name}: {len(features)} samples, expected more than {neighbors}")
    found = prc_features_to_metric(
        fake, real, prc_neighborhood=neighbors, save_cpu_ram=True, verbose=False
    )
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


@METRICS.register("prc")
class PrecisionRecall(GenerativeMetric):
    """How many generated images look real, and how many real ones could have been generated."""

    outputs = (Output("precision", "precision"), Output("recall", "recall"))
    needs = frozenset({"features"})

    @staticmethod
    def compute(real: FeatureStatistics, fake: FeatureStatistics, options: Options) -> Result:
        assert real.features is not None and fake.features is not None
        precision, recall = precision_recall(fake.features, real.features, options.neighbors)
        return Result({"precision": precision, "recall": recall})
