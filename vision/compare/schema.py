"""What a comparison's file may hold. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vision.compare.tuning import Tuning

EVALUATE = "evaluate/"  # before the names of metrics that tools/evaluate.py adds
CORRUPTIONS = "corruptions"


@dataclass(frozen=True)
class Metric:
    """What variants are compared by."""

    name: str
    higher_is_better: bool
    margin: float | None


@dataclass
class Variant:
    """One row of the table: a norm, and whatever else is particular to it."""

    norm: str | None = None  # null: what `configs` say, else the variant's label
    options: dict[str, Any] = field(default_factory=dict)  # of the norm
    configs: list[str] = field(default_factory=list)  # overlays, such as ../norm/dit_dyt.yaml
    overrides: list[str] = field(default_factory=list)  # key=value
    tune: dict[str, Any] = field(default_factory=dict)  # keys of its own in the search space


@dataclass
class TaskGrid:
    """One task of the comparison, done with every variant and every seed."""

    configs: list[str] = field(default_factory=list)  # relative to the file that names them
    overrides: list[str] = field(default_factory=list)  # key=value
    init_from: str | None = None  # another task here: start from its run of same variant and seed
    features_from: str | None = None  # another task here; FD uses its baseline run's features
    metric: str = "test/top1"  # what is compared, from summary.json
    higher_is_better: bool = True
    margin: float | None = None  # differences within it count as none, in units of the metric
    # further metrics of summary.json to show, or when one passed a value: steps to val/loss <= 0.5
    columns: list[str] = field(default_factory=list)
    # compared too, by tools/evaluate.py on each run: calibration_error, corruptions (top-1, mean
    # over all types and severities), corruptions/TYPE
    evaluate: list[str] = field(default_factory=list)
    tune: Tuning | None = None  # instead of the comparison's

    def compared(self) -> list[Metric]:
        """The task's metric, and those of the evaluations, to which its margin does not apply."""
        more = [Metric(f"{EVALUATE}{name}", "error" not in name, None) for name in self.evaluate]
        return [Metric(self.metric, self.higher_is_better, self.margin), *more]


@dataclass
class CompareConfig:
    """The grid. Its directory is `output_dir/name`; a cell's is TASK/LABEL_seedSEED in it.

    `norms` are variants that are called as their norm; `variants` have any label.
    """

    name: str = "compare"
    output_dir: str = "runs"
    baseline: str = "layernorm"  # the variant that differences refer to
    norms: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> options
    variants: dict[str, Variant] = field(default_factory=dict)  # label -> variant
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    tasks: dict[str, TaskGrid] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)  # key=value of every run, as data.root=...
    tune: Tuning | None = None  # of every task; null: nothing is tuned
    # what `tools/benchmark.py models` wrote, for time and memory; null: neither is shown
    costs: str | None = None

    def rows(self) -> dict[str, Variant]:
        """All variants by label, in the order of the tables."""
        plain = {name: Variant(norm=name, options=o) for name, o in self.norms.items()}
        return plain | self.variants

    def tuning(self, task: str) -> Tuning | None:
        """How a task is tuned, if it is."""
        return self.tasks[task].tune or self.tune


def needed(grid: TaskGrid) -> dict[str, str]:
    """The tasks whose runs `grid` uses, and the field that names each."""
    return {
        t: key for key in ("init_from", "features_from") if (t := getattr(grid, key)) is not None
    }
