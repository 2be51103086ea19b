"""Intervals against scipy's own paired test."""

import pytest
from scipy import stats

from vision.compare.report.differences import mean_and_std, paired_difference

A = {0: 97.2, 1: 98.3, 2: 98.1, 3: 97.9}
B = {0: 96.1, 1: 97.9, 2: 96.6, 3: 97.5}


def test_the_interval_is_that_of_the_paired_t_test() -> None:
    difference = paired_difference(A, B)
    test = stats.ttest_rel([A[s] for s in A], [B[s] for s in A])
    interval = test.confidence_interval(0.95)
    assert difference is not None
    assert difference.mean == pytest.approx(0.85)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))
    assert difference.decided == (test.pvalue < 0.05)


def test_only_seeds_that_both_have_are_paired() -> None:
    difference = paired_difference({0: 1.0, 1: 2.0, 7: 100.0}, {0: 0.5, 1: 1.0, 8: -100.0})
    assert difference is not None
    assert (difference.pairs, difference.mean) == (2, 0.75)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_without_spread_nothing_is_decided() -> None:
    for values in ({0: 2.0}, {0: 2.0, 1: 3.0, 2: 4.0}):
        difference = paired_difference(values, {0: 1.0, 1: 2.0, 2: 3.0})
        assert difference is not None
        assert difference.mean == 1.0
        assert difference.low is None and not difference.decided


def test_spread_is_that_of_a_sample() -> None:
    assert mean_and_std([1.0, 3.0]) == (2.0, pytest.approx(2**0.5))
    assert mean_and_std([1.0]) == (1.0, None)
