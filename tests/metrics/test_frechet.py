"""The Fréchet distance against closed forms, and what it does where covariances are singular."""

import numpy as np
import pytest
import torch

from vision.metrics.accumulators import Array, Moments, MomentSums
from vision.metrics.frechet import (
    FrechetReference,
    jackknife_error,
    sample_warnings,
)


def _distance(mean1: Array, cov1: Array, mean2: Array, cov2: Array) -> float:
    return FrechetReference(mean1, cov1).distance(mean2, cov2)


def _covariance(dim: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(dim, dim))
    return root @ root.T / dim


def test_gaussians_with_diagonal_covariances_equal_the_closed_form() -> None:
    draw = np.random.default_rng(0)
    mean1, mean2 = draw.normal(size=(2, 30))
    var1, var2 = draw.uniform(0.1, 4, size=(2, 30))
    expected = ((mean1 - mean2) ** 2).sum() + ((np.sqrt(var1) - np.sqrt(var2)) ** 2).sum()
    value = _distance(mean1, np.diag(var1), mean2, np.diag(var2))
    assert value == pytest.approx(expected, rel=1e-12)


def test_a_scaled_covariance_equals_the_closed_form() -> None:
    cov = _covariance(40, 1)
    # (C 9C)^1/2 = 3C, so the distance is (1 - 3)^2 tr C
    value = _distance(np.zeros(40), cov, np.zeros(40), 9 * cov)
    assert value == pytest.approx(4 * np.trace(cov), rel=1e-10)


def test_general_covariances_equal_the_matrix_square_root() -> None:
    from scipy.linalg import sqrtm

    a, b = _covariance(25, 2), _covariance(25, 3)
    mean = np.arange(25) / 25
    expected = mean @ mean + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert _distance(mean, a, np.zeros(25), b) == pytest.approx(expected, rel=1e-8)
    assert _distance(np.zeros(25), b, mean, a) == pytest.approx(expected, rel=1e-8)


def test_a_set_is_at_distance_zero_from_itself() -> None:
    features = np.random.default_rng(4).normal(3, 2, size=(500, 64))
    mean, cov = features.mean(0), np.cov(features, rowvar=False)
    assert abs(_distance(mean, cov, mean, cov)) < 1e-3


def test_fewer_samples_than_features_give_a_finite_number_and_a_warning() -> None:
    draw = np.random.default_rng(5)
    a, b = draw.normal(size=(20, 64)), draw.normal(1, 1, size=(30, 64))
    stats = [Moments(len(x), x.mean(0), np.cov(x, rowvar=False)) for x in (a, b)]
    value = _distance(stats[0].mean, stats[0].cov, stats[1].mean, stats[1].cov)
    assert np.isfinite(value) and value > 0
    assert "singular" in sample_warnings("real", stats[0])[0]
    assert abs(_distance(stats[0].mean, stats[0].cov, stats[0].mean, stats[0].cov)) < 1e-3


def test_constant_features_have_the_distance_of_their_means() -> None:
    zero = np.zeros((3, 3))
    assert _distance(np.ones(3), zero, np.zeros(3), zero) == 3.0


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (64, ["singular", "fewer than 10,000"]),
        (100, ["twice", "fewer than 10,000"]),
        (9_999, ["fewer than 10,000"]),
        (10_000, []),
        (None, ["do not say"]),
    ],
)
def test_warnings_by_the_number_of_samples(count: int | None, expected: list[str]) -> None:
    found = sample_warnings("fake", Moments(count, np.zeros(64), np.eye(64)))
    assert len(found) == len(expected)
    assert all(part in line for part, line in zip(expected, found, strict=True))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="different extractors"):
        _distance(np.zeros(3), np.eye(3), np.zeros(4), np.eye(4))
    with pytest.raises(ValueError, match="NaN"):
        FrechetReference(np.zeros(2), np.full((2, 2), np.nan))


def test_sums_give_the_statistics_of_numpy_however_samples_are_batched() -> None:
    features = torch.randn(101, 7, generator=torch.Generator().manual_seed(0)) + 50
    groups = torch.arange(101) % 3
    sums = MomentSums(7, groups=3)
    for rows in torch.arange(101).split([0, 60, 1, 40]):
        sums.update(features[rows], groups[rows])
    parts = sums.compute()
    exact = features.double().numpy()
    rests = list(parts.leave_one_out())
    for found, kept in [(parts.moments, exact), (rests[1], exact[groups.numpy() != 1])]:
        assert found.count == len(kept)
        np.testing.assert_allclose(found.mean, kept.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.cov, np.cov(kept, rowvar=False), rtol=1e-9, atol=1e-10)


def test_one_sample_has_no_covariance() -> None:
    sums = MomentSums(2)
    sums.update(torch.ones(1, 2))
    with pytest.raises(ValueError, match="at least 2"):
        _ = sums.compute().moments


def test_jackknife_error_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(6).normal(size=10)
    left_out = [float(np.delete(values, i).mean()) for i in range(10)]
    assert jackknife_error(left_out) == pytest.approx(values.std(ddof=1) / np.sqrt(10))
