"""KID, Inception score, precision and recall against torch-fidelity, on features."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from vision.metrics.accumulators import KeptFeatures, PredictionSums, random_parts, random_subset
from vision.metrics.base import FeatureStatistics, Options
from vision.metrics.generative.kid import kernel_distance
from vision.metrics.generative.prc import precision_recall
from vision.registry import METRICS


def _sets(count: int, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    fake = torch.randn(count, dim, generator=generator)
    return fake, torch.randn(count + 13, dim, generator=generator) * 1.2 + 0.1


def _inception_score(sums: PredictionSums) -> tuple[float, float]:
    fake = FeatureStatistics(settings=None, predictions=sums.compute())
    values = METRICS.get("is").compute(FeatureStatistics(None), fake, Options()).values
    return values["is"], values["is_std"]


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_equals_torch_fidelity_however_batched(splits: int) -> None:
    logits = 3 * torch.randn(203, 11, generator=torch.Generator().manual_seed(1))
    expected = isc_features_to_metric(logits, splits, True, 2020)
    parts = random_parts(203, splits, 2020)
    score = PredictionSums(11, splits)
    for rows in torch.randperm(203, generator=torch.Generator().manual_seed(2)).split(32):
        score.update(logits[rows], parts[rows])
    mean, deviation = _inception_score(score)
    assert mean == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert deviation == pytest.approx(expected["inception_score_std"], rel=1e-6, abs=1e-9)


def test_inception_score_of_sure_and_balanced_predictions_is_the_number_of_classes() -> None:
    score = PredictionSums(5, 1)
    score.update(1e4 * torch.eye(5), torch.zeros(5, dtype=torch.int64))
    assert _inception_score(score)[0] == pytest.approx(5)


def test_kid_equals_torch_fidelity() -> None:
    fake, real = _sets(150, 48)
    expected = kid_features_to_metric(
        fake, real, kid_subsets=20, kid_subset_size=100, verbose=False
    )
    mean, deviation = kernel_distance(fake, real, 20, 100)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert deviation == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)


def test_kid_refuses_subsets_larger_than_the_sets() -> None:
    with pytest.raises(ValueError, match="2 to 10"):
        kernel_distance(torch.zeros(10, 3), torch.zeros(30, 3), 5, 11)


def test_precision_and_recall_equal_torch_fidelity() -> None:
    fake, real = _sets(200, 6)
    expected = prc_features_to_metric(fake, real, verbose=False)
    precision, recall = precision_recall(fake, real)
    assert precision == expected["precision"]
    assert recall == expected["recall"]
    assert 0 < recall < precision <= 1


def test_precision_and_recall_of_a_mode_dropped_and_of_noise_added() -> None:
    generator = torch.Generator().manual_seed(3)
    real = torch.randn(200, 4, generator=generator)
    real[:100] += 100  # two modes
    assert precision_recall(real[100:] + 0.01, real) == (1.0, 0.5)
    assert precision_recall(real + 1000, real) == (0.0, 0.0)


def test_a_subset_is_kept_in_the_order_of_the_samples() -> None:
    features = torch.arange(10.0)[:, None]
    subset = KeptFeatures()
    for rows in torch.tensor([7, 2, 9, 0, 4]).split(2):
        subset.update(features[rows], rows)
    assert subset.compute().flatten().tolist() == [0, 2, 4, 7, 9]


def test_random_subset_keeps_all_or_a_random_subset_of_fixed_size() -> None:
    assert random_subset(10, 10, 0).all()
    picked = random_subset(1000, 100, 0)
    assert picked.sum() == 100
    assert 20 < np.flatnonzero(picked).mean() / 10 < 80
    assert (picked == random_subset(1000, 100, 0)).all() and (
        picked != random_subset(1000, 100, 1)
    ).any()
