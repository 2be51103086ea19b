"""Intervals and verdicts: against scipy's own tests, and on comparisons whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from vision.compare.statistics import (
    Effect,
    compare_to_baseline,
    mean_and_std,
    shared_test_variance,
)

A = {0: 97.2, 1: 98.3, 2: 98.1, 3: 97.9}
B = {0: 96.1, 1: 97.9, 2: 96.6, 3: 97.5}


def effect(values: dict[int, float], baseline: dict[int, float], **options) -> Effect:
    return compare_to_baseline({"base": baseline, "other": values}, "base", **options)["other"]


def test_one_difference_has_the_interval_of_the_paired_t_test() -> None:
    found = effect(A, B)
    test = stats.ttest_rel([A[s] for s in A], [B[s] for s in A])
    interval = test.confidence_interval(0.95)
    assert found.difference == pytest.approx(0.85)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.verdict == "better") == (test.pvalue < 0.05)


def test_several_differences_are_as_wide_as_dunnetts() -> None:
    """Where seeds share nothing, both estimate one error; the quantile is that of a table."""
    generator = np.random.default_rng(5)
    values = {str(v): dict(enumerate(generator.normal(size=6).tolist())) for v in range(5)}
    found = compare_to_baseline(values, "0")
    samples = np.array([list(values[v].values()) for v in values])
    residual = samples - samples.mean(0) - samples.mean(1, keepdims=True) + samples.mean()
    error = math.sqrt(2 / 6 * (residual**2).sum() / 20)
    pairs = samples[1:] - samples[0]
    own = pairs.std(1, ddof=1) / math.sqrt(6)
    for i, one in enumerate(found.values()):
        assert one.high is not None and one.low is not None
        quantile = (one.high - one.low) / 2 / max(error, own[i])
        assert quantile == pytest.approx(2.65, abs=0.02)  # two-sided, 4 comparisons, 20 df


def test_only_seeds_that_both_have_are_paired() -> None:
    found = effect({0: 1.0, 1: 2.0, 7: 100.0}, {0: 0.5, 1: 1.0, 8: -100.0})
    assert found.difference == pytest.approx(0.75)
    assert effect({0: 1.0}, {1: 1.0}) == Effect("no results")
    assert effect({}, {1: 1.0}) == Effect("no results")


def test_without_spread_nothing_is_decided() -> None:
    for values in ({0: 2.0}, {0: 2.0, 1: 3.0, 2: 4.0}):
        found = effect(values, {0: 1.0, 1: 2.0, 2: 3.0})
        assert found.difference == pytest.approx(1.0)
        assert (found.verdict, found.low, found.smallest) == ("undecided", None, None)


def test_spread_is_that_of_a_sample() -> None:
    assert mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_and_std([1.0]) == (1.0, None)


def test_a_divergence_is_the_verdict_and_one_of_the_baseline_leaves_none() -> None:
    found = effect({0: 99.0, 1: 99.1}, B, diverged={"other": (2, 4)}, margin=10)
    assert (found.verdict, found.low) == ("diverges (2 of 4)", None)
    assert found.difference == pytest.approx(((99 - 96.1) + (99.1 - 97.9)) / 2)
    assert effect(A, B, diverged={"base": (1, 5)}, margin=10).verdict == "undecided"


def test_the_margin_decides_what_is_equivalent_and_how_many_seeds_it_needs() -> None:
    assert effect(A, B).seeds_for_margin is None
    wide = effect(A, B, margin=3.0)
    assert (wide.verdict, wide.seeds_for_margin) == ("equivalent", 3)
    narrow = effect(A, B, margin=0.5)
    assert (narrow.verdict, narrow.seeds_for_margin) == ("undecided", 12)
    above = {seed: value + 1 for seed, value in A.items()}
    assert effect(above, B, margin=0.5).verdict == "better"
    assert effect(above, B, margin=0.5, higher_is_better=False).verdict == "worse"
    # images that all seeds share: no number of seeds makes up for them
    assert effect(A, B, margin=0.5, test_variance={"other": 1.0}).seeds_for_margin == math.inf


def test_what_the_choice_of_test_images_adds_is_found_again() -> None:
    """Two classifiers, equally good on all images there are, but each on images of its own."""
    generator = np.random.default_rng(2)
    seeds, images, found, means = 4, 400, [], []
    for _ in range(300):
        easy = generator.random((2, images)) < 0.5
        right = np.where(easy[:, None], 0.98, 0.86)
        first, second = generator.random((2, seeds, images)) < right
        found.append(shared_test_variance(first, second))
        means.append(easy[0].mean() - easy[1].mean())
    truth = 2 * 0.25 * 0.12**2 / images
    assert np.mean(found) == pytest.approx(truth, rel=0.1)
    assert shared_test_variance(np.ones((3, 9)), np.ones((3, 9))) == 0


@pytest.mark.parametrize(
    ("seeds", "scatter"),
    [(5, {}), (5, {5: 3.0}), (8, {5: 3.0}), (10, {5: 10.0}), (10, {0: 3.0})],
    ids=["equal", "one thrice", "one thrice, 8 seeds", "one ten times", "the baseline thrice"],
)
def test_errors_are_kept_within_their_bounds(seeds: int, scatter: dict[int, float]) -> None:
    """2,000 comparisons of six variants with effects 0 and +-2.5, seeds, shared test images and
    divergences: wrong verdicts at most 5 %, all intervals at once hold the truth in 94 %."""
    generator = np.random.default_rng(0)
    truth, margin, repetitions = np.array([0, 0, 0, 2.5, -2.5, 0]), 2.5, 2000
    spread = np.array([scatter.get(v, 1.0) for v in range(6)])[:, None]
    held = wrong = diverging = shown = 0
    equivalent = {True: 0, False: 0}
    for _ in range(repetitions):
        lost = generator.random((6, seeds)) < 0.02
        images = 0.3 * generator.normal(size=(6, 1)) * (truth >= 0)[:, None]
        values = truth[:, None] + images + generator.normal(size=seeds)
        values = values + spread * generator.normal(size=(6, seeds))
        found = compare_to_baseline(
            {str(v): {s: values[v, s] for s in range(seeds) if not lost[v, s]} for v in range(6)},
            "0",
            diverged={str(v): (int(lost[v].sum()), seeds) for v in range(6)},
            margin=margin,
            test_variance={str(v): 0.09 * (1 + (truth[v] >= 0)) for v in range(6)},
        )
        judged = [(truth[int(label)], e) for label, e in found.items() if e.low is not None]
        held += all(e.low <= d <= e.high for d, e in judged)
        right = {"better": lambda d: d > 0, "worse": lambda d: d < 0}
        right |= {"equivalent": lambda d: abs(d) < margin, "undecided": lambda d: True}
        wrong += not all(right[e.verdict](d) for d, e in judged)
        for d, e in judged:
            equivalent[bool(abs(d) < margin)] += e.verdict == "equivalent"
            shown += d != 0 and e.verdict in ("better", "worse")
        for label, e in found.items():
            diverges = lost[int(label)].any()
            assert e.verdict.startswith("diverges") == diverges
            diverging += diverges
    assert held / repetitions >= 0.94
    assert wrong / repetitions <= 0.05
    assert equivalent[False] / repetitions <= 0.05
    assert diverging > 500
    assert shown / repetitions > (0.5 if 0 not in scatter else 0.1)  # it can tell
    assert equivalent[True] / repetitions > (0.1 if 0 not in scatter else 0)
