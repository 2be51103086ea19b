"""Mean and spread over seeds, and the difference between two norms with its interval."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from scipy import stats


@dataclass(frozen=True)
class Difference:
    """Mean of the differences between runs of equal seed, with its confidence interval."""

    mean: float
    low: float | None  # None: fewer than two pairs, or all differences equal
    high: float | None
    pairs: int

    @property
    def decided(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


def mean_and_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the latter where there is one value."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), spread


def paired_difference(
    values: dict[int, float], baseline: dict[int, float], confidence: float = 0.95
) -> Difference | None:
    """`values` - `baseline` over the seeds that both have; Student's t interval.

    Pairing by seed removes what runs of one seed share (initial values, order of the data). No
    interval where all differences are equal: there is no spread to take it from. None where the
    two have no seed in common.
    """
    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    differences = [values[seed] - baseline[seed] for seed in seeds]
    mean, spread = mean_and_std(differences)
    if spread is None or math.isclose(spread, 0, abs_tol=1e-12):
        return Difference(mean, None, None, len(seeds))
    reach = stats.t.ppf(0.5 + confidence / 2, len(seeds) - 1) * spread / math.sqrt(len(seeds))
    return Difference(mean, mean - float(reach), mean + float(reach), len(seeds))
