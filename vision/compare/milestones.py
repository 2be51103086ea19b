"""Steps that a run took until a metric passed a value: columns as `steps to val/loss <= 0.5`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vision.errors import nearest

_BEGINNING = "steps to "
_FORM = re.compile(r"steps to (\S+) (<=|>=) (\S+)")


@dataclass(frozen=True)
class Milestone:
    """A value that a metric of `metrics.csv` passes, downwards (`<=`) or upwards."""

    metric: str
    downwards: bool
    value: float

    def steps(self, rows: Mapping[int, Mapping[str, float]]) -> int | None:
        """Steps done when the metric first passed; None: never. `rows` are by step, from 0.

        Between two rows nobody looked: the answer is as fine as logging or validation.
        """
        for step, row in sorted(rows.items()):
            found = row.get(self.metric, math.nan)
            if found <= self.value if self.downwards else found >= self.value:
                return step + 1
        return None


def is_milestone(column: str) -> bool:
    """Whether a column asks for steps and not for a metric."""
    return column.startswith(_BEGINNING)


def read_milestone(column: str) -> Milestone:
    """What `steps to METRIC <= VALUE` (or `>=`) asks for. Raises ValueError."""
    match = _FORM.fullmatch(column)
    try:
        value = float(match[3]) if match else math.nan
    except ValueError:
        value = math.nan
    if match is None or not math.isfinite(value):
        raise ValueError(
            f"columns = {column!r}: expected steps to METRIC <= VALUE, or >=, with a number, such "
            "as 'steps to val/loss <= 0.5'"
        )
    return Milestone(match[1], match[2] == "<=", value)


def check_milestone(column: str, final: list[str]) -> None:
    """Raise ValueError for steps to a metric that no run follows; `final` are those at its end."""
    metric = read_milestone(column).metric
    followed = ["train/loss_step", *(name for name in final if not name.startswith("test/"))]
    if metric not in followed:
        raise ValueError(
            f"columns = {column!r}: runs do not follow {metric}; {nearest(metric, followed)}"
        )
