"""Differences to a baseline over shared seeds, judged together. Knows numbers and labels only.

One additive model per task, value = variant + seed + error, fitted by least squares over all
variants that never diverged: pairing by seed removes what runs of one seed share (initial values,
order of the data), and pooling the error over variants gives few seeds more degrees of freedom.
Intervals are simultaneous, as Dunnett's (1955): the largest of the studentized differences has a
multivariate t distribution, whose quantile widens every interval, so that all of them hold at once
with 95 %. `scipy.stats.dunnett` itself ignores the pairing and takes no missing runs.

A pooled error is too small for a variant that scatters more than the others, so each difference has
the larger of the pooled error and that of its own pairs. But one variant that scatters ten times as
much as the others widens all their intervals. So from `OWN_PAIRS` shared seeds on nothing is
pooled: each difference has the interval of its paired t test, at a level for each with which all
hold at once with 95 % (Sidak 1967), whatever scatters how much.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.stats import qmc

LEVEL = 0.95
POWER = 0.8  # with which a difference of the size `Effect.smallest` is shown
OWN_PAIRS = 8  # seeds from which a spread is known well enough from a variant's own pairs
_DRAWS = 2**14  # points of the quantile; its level is met to about 0.001
_MOST_SEEDS = 1000


@dataclass(frozen=True)
class Effect:
    """One variant against the baseline; verdicts: better, worse, equivalent, undecided,
    diverges (k of n), no results."""

    verdict: str
    difference: float | None = None  # None: no seed connects the two
    low: float | None = None  # simultaneous interval; None: nothing to take a spread from
    high: float | None = None
    smallest: float | None = None  # difference that so many seeds show with a chance of POWER
    seeds_for_margin: float | None = None  # to show the margin with that chance; may be infinite


def mean_and_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the latter where there is one value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def compare_to_baseline(
    values: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    diverged: Mapping[str, tuple[int, int]] | None = None,
    higher_is_better: bool = True,
    margin: float | None = None,
    test_variance: Mapping[str, float] | None = None,
) -> dict[str, Effect]:
    """The effect of every variant but the baseline.

    Args:
        values: Finished runs: label -> seed -> value.
        baseline: One of the labels.
        diverged: label -> (seeds that diverged, seeds in all). Such a variant is judged by that
            alone: what survives is a selection. Where the baseline diverges, nothing is decided.
        margin: Differences inside it count as none: a variant is equivalent where the whole
            interval lies within.
        test_variance: label -> variance of its difference to the baseline that comes from the
            finite test set and that all seeds share (`shared_test_variance`).
    """
    lost = {label: k for label, k in (diverged or {}).items() if k[0] > 0}
    others = [label for label in values if label != baseline]
    judged = [label for label in others if label not in lost and values[label]]
    effects = {label: Effect("no results") for label in others}
    for label in others:
        if label in lost:
            verdict = f"diverges ({lost[label][0]} of {lost[label][1]})"
            effects[label] = Effect(verdict, _paired(values[label], values[baseline]))
    fit = _fit({label: values[label] for label in [baseline, *judged]})
    own = np.array([_own_variance(values[label], values[baseline]) for label in judged])
    pairs = [len(values[label].keys() & values[baseline].keys()) for label in judged]
    pooled = min(pairs, default=0) < OWN_PAIRS
    extra = np.array([(test_variance or {}).get(label, 0.0) for label in judged])
    sign = 1.0 if higher_is_better else -1.0
    for i, label in enumerate(judged):
        if fit.estimable[i]:
            difference, spread = float(fit.differences[i]), _pooled(fit, i, float(own[i]))
            if not pooled:
                difference = _paired(values[label], values[baseline]) or 0.0
                spread = _own_pairs(float(own[i]), pairs[i], len(judged))
            found = _effect(difference, spread, float(extra[i]), margin, sign)
            if baseline in lost:
                found = Effect("undecided", found.difference)
            effects[label] = found
    return effects


def shared_test_variance(first: np.ndarray, second: np.ndarray) -> float:
    """Variance of the mean difference of two classifiers that is due to the choice of images.

    `first`, `second`: [S, N] whether run s is right about image n, the same images and seeds in
    both; in squared fractions. Images are drawn once for all seeds, so that more seeds do not
    average it out, and the scatter over seeds does not show it: the part of the variance of the
    images' mean difference (over seeds) that the interaction of images and seeds does not explain.
    """
    d = first.astype(float) - second.astype(float)
    seeds, images = d.shape
    if seeds < 2 or images < 2:
        return 0.0
    by_image = d.mean(0)
    rest = d - by_image - d.mean(1, keepdims=True) + d.mean()
    interaction = (rest**2).sum() / ((seeds - 1) * (images - 1))
    return max(0.0, float(by_image.var(ddof=1) - interaction / seeds) / images)


@dataclass(frozen=True)
class _Fit:
    """Differences to the baseline with what their intervals are made of."""

    differences: np.ndarray  # [K]
    variances: np.ndarray  # [K] in units of the error's
    correlation: np.ndarray  # [K, K]
    estimable: np.ndarray  # [K]
    sigma: float | None  # of the error; None without degrees of freedom
    df: int


def _fit(values: Mapping[str, Mapping[int, float]]) -> _Fit:
    """Least squares of variant + seed; the first label is the baseline."""
    labels = list(values)
    seeds = sorted({seed for runs in values.values() for seed in runs})
    cells = [(v, seeds.index(s), y) for v, n in enumerate(labels) for s, y in values[n].items()]
    y = np.array([cell[2] for cell in cells])
    # an own level for each variant, and one for each seed: one column too many, as pinv takes it
    design = np.zeros((len(cells), len(labels) + len(seeds)))
    for row, (variant, seed, _) in enumerate(cells):
        design[row, variant] = design[row, len(labels) + seed] = 1
    inverse = np.linalg.pinv(design.T @ design, hermitian=True)
    contrasts = np.zeros((len(labels) - 1, design.shape[1]))
    contrasts[:, 0] = -1
    contrasts[np.arange(len(labels) - 1), np.arange(1, len(labels))] = 1
    known = np.abs(contrasts @ inverse @ design.T @ design - contrasts).max(1, initial=0.0)
    coefficients = inverse @ design.T @ y
    residual = float(((y - design @ coefficients) ** 2).sum())
    df = len(y) - round(float(np.trace(inverse @ design.T @ design)))
    covariance = contrasts @ inverse @ contrasts.T
    deviations = np.sqrt(np.diag(covariance))
    outer = np.outer(deviations, deviations)
    correlation = np.divide(covariance, outer, out=np.eye(len(deviations)), where=outer > 0)
    sigma = math.sqrt(residual / df) if df > 0 else None
    differences = contrasts @ coefficients
    differences[np.abs(differences) < 1e-12 * np.abs(y).max(initial=0.0)] = 0.0  # of rounding
    return _Fit(differences, deviations**2, correlation, known < 1e-8, sigma, df)


@dataclass(frozen=True)
class _Spread:
    """What an interval is made of, but for the test set."""

    sigma: float | None  # of the error of one run; None: nothing to take it from
    variance: float  # of the difference
    quantile: float
    df: int
    count: int  # of differences that are judged together


def _pooled(fit: _Fit, i: int, own: float) -> _Spread:
    count = int(fit.estimable.sum())
    if fit.sigma is None:
        return _Spread(None, 0.0, 0.0, 0, count)
    sigma = max(fit.sigma, math.sqrt(own / fit.variances[i]))
    quantile = _quantile(_key(fit.correlation[np.ix_(fit.estimable, fit.estimable)]), fit.df)
    return _Spread(sigma, fit.variances[i] * sigma**2, quantile, fit.df, count)


def _own_pairs(own: float, pairs: int, count: int) -> _Spread:
    return _Spread(math.sqrt(own * pairs / 2), own, _sidak(count, pairs - 1), pairs - 1, count)


def _sidak(count: int, df: int) -> float:
    """c with P(|T| <= c) = LEVEL^(1 / count) for a t distribution."""
    return float(special.stdtrit(df, (1 + LEVEL ** (1 / count)) / 2))


def _effect(
    difference: float, spread: _Spread, extra: float, margin: float | None, sign: float
) -> Effect:
    sigma = spread.sigma
    # no scatter at all is no measure of it
    if sigma is None or (math.isclose(sigma, 0, abs_tol=1e-12) and extra == 0):
        return Effect("undecided", difference)
    error = math.sqrt(spread.variance + extra)
    low, high = difference - spread.quantile * error, difference + spread.quantile * error
    verdict = "undecided"
    if margin is not None and -margin < low and high < margin:
        verdict = "equivalent"
    elif low > 0 or high < 0:
        verdict = "better" if sign * difference > 0 else "worse"
    smallest = (spread.quantile + float(special.stdtrit(spread.df, POWER))) * error
    needed = None if margin is None else _seeds_needed(sigma, extra, margin, spread.count)
    return Effect(verdict, difference, low, high, smallest, needed)


def _seeds_needed(sigma: float, extra: float, margin: float, count: int) -> float:
    """Seeds in all with which a difference of `margin` is shown; infinite if the test set is too
    small for it, or more than _MOST_SEEDS."""

    def reach(seeds: int) -> float:
        return _balanced_factor(count, seeds) * math.sqrt(2 * sigma**2 / seeds + extra)

    if reach(_MOST_SEEDS) > margin:
        return math.inf
    low, high = 1, _MOST_SEEDS  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reach(middle) <= margin else (middle, high)
    return high


@functools.lru_cache(maxsize=1024)
def _balanced_factor(count: int, seeds: int) -> float:
    """How many errors of a difference are shown with a chance of POWER, if no run is missing."""
    if seeds >= OWN_PAIRS:
        return _sidak(count, seeds - 1) + float(special.stdtrit(seeds - 1, POWER))
    df = (seeds - 1) * count
    return _quantile(_key((np.eye(count) + 1) / 2), df) + float(special.stdtrit(df, POWER))


def _paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> float | None:
    """Mean difference over the seeds that both have."""
    seeds = values.keys() & baseline.keys()
    return statistics.fmean(values[s] - baseline[s] for s in seeds) if seeds else None


def _own_variance(values: Mapping[int, float], baseline: Mapping[int, float]) -> float:
    """Variance of the mean difference by the scatter of its pairs; 0 for fewer than two."""
    seeds = values.keys() & baseline.keys()
    if len(seeds) < 2:
        return 0.0
    return statistics.variance([values[s] - baseline[s] for s in seeds]) / len(seeds)


def _key(correlation: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in np.round(correlation, 6).tolist())


@functools.lru_cache(maxsize=1024)
def _quantile(correlation: tuple[tuple[float, ...], ...], df: int) -> float:
    """c with P(all |T| <= c) = LEVEL for a multivariate t of this correlation [K, K]."""
    matrix = np.array(correlation)
    if len(matrix) == 1:
        return float(special.stdtrit(df, (1 + LEVEL) / 2))
    roots, axes = np.linalg.eigh(matrix)
    half = axes * np.sqrt(np.clip(roots, 0, None))
    normal, chi = _points(len(matrix), df)
    return float(np.quantile(np.abs(normal @ half.T).max(1) / chi, LEVEL))


@functools.lru_cache(maxsize=64)
def _points(count: int, df: int) -> tuple[np.ndarray, np.ndarray]:
    """Quasi-random standard normal [M, count], and chi / sqrt(df) [M]."""
    uniform = qmc.Sobol(count + 1, seed=0).random(_DRAWS)
    uniform = np.clip(uniform, 1e-12, 1 - 1e-12)
    return special.ndtri(uniform[:, :-1]), np.sqrt(
        2 * special.gammaincinv(df / 2, uniform[:, -1]) / df
    )
