"""The statistics of one task from its runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vision.compare.report.collect import Comparison, Run
from vision.compare.schema import Metric
from vision.compare.statistics import Effect, compare_to_baseline, shared_test_variance
from vision.training.callbacks.test_predictions import read_predictions

_IMAGES = "test/top1"  # the metric that runs keep image by image


@dataclass(frozen=True)
class TaskResult:
    """Every variant against the baseline by one metric, and what the intervals are made of."""

    metric: Metric
    effects: dict[str, Effect]  # by label, without the baseline's
    diverged: dict[str, tuple[int, int]]  # label -> (seeds that diverged, seeds in all)
    unit: float | None  # what one image of the split changes in the metric; None: not known
    test_set: str  # how the error of a finite test set enters


def task_results(comparison: Comparison, task: str) -> list[TaskResult]:
    """The statistics of `task`, of all runs that have finished, by each metric compared."""
    metrics = comparison.config.tasks[task].compared()
    return [_result(comparison, task, metric) for metric in metrics]


def _result(comparison: Comparison, task: str, metric: Metric) -> TaskResult:
    config = comparison.config
    rows = config.rows()
    lost = {
        label: sum(run.state == "diverged" for run in comparison.of(task, label)) for label in rows
    }
    diverged = {label: (count, len(config.seeds)) for label, count in lost.items() if count}
    variances, unit, test_set = _test_set(comparison, task, metric.name)
    effects = compare_to_baseline(
        {label: comparison.values(task, label, metric.name) for label in rows},
        config.baseline,
        diverged=diverged,
        higher_is_better=metric.higher_is_better,
        margin=metric.margin,
        test_variance=variances,
    )
    return TaskResult(metric, effects, diverged, unit, test_set)


def _test_set(
    comparison: Comparison, task: str, metric: str
) -> tuple[dict[str, float], float | None, str]:
    """Variance by label that all seeds share, the unit, and a sentence about both."""
    without = "The error of a finite test set is not part of the intervals: "
    if metric != _IMAGES:
        return {}, None, f"{without}runs keep results image by image for {_IMAGES} alone."
    runs = [r for label in comparison.config.rows() for r in comparison.of(task, label)]
    finished = [run for run in runs if run.state == "finished"]
    right = {(run.cell.variant, run.cell.seed): found for run in finished if (found := _right(run))}
    if len(right) < len(finished) or not right:
        missing = len(finished) - len(right)
        return {}, None, f"{without}{missing} runs have no test_predictions.npz."
    targets = [target for target, _ in right.values()]
    unit = 100 / len(targets[0])
    if any(not np.array_equal(targets[0], other) for other in targets):
        return {}, unit, (
            "Seeds have test sets of their own, so the scatter over seeds holds the error of each "
            "finite test set; images that several of these sets share are counted as new ones."
        )  # fmt: skip
    labels = {label for label, _ in right} - {comparison.config.baseline}
    variances = {label: _shared(right, label, comparison.config.baseline) for label in labels}
    return {k: 1e4 * v for k, v in variances.items()}, unit, (
        f"All seeds share {len(targets[0])} test images. What their choice adds to the variance of "
        "a difference is estimated from the results image by image and is part of the intervals."
    )  # fmt: skip


def _shared(
    right: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]], label: str, baseline: str
) -> float:
    seeds = [s for name, s in right if name == label and (baseline, s) in right]
    if not seeds:
        return 0.0
    first, second = (np.array([right[name, s][1] for s in seeds]) for name in (label, baseline))
    return shared_test_variance(first, second)


def _right(run: Run) -> tuple[np.ndarray, np.ndarray] | None:
    """Classes [N] of the test images, and whether each is predicted [N]."""
    file = run.folder / "test_predictions.npz"
    if not file.is_file():
        return None
    target, predicted = read_predictions(file)
    return target, target == predicted
