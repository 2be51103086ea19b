"""What a comparison shows, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from vision.compare.costs import COMMAND
from vision.compare.report.collect import Comparison
from vision.compare.report.results import TaskResult
from vision.compare.report.tables import Row
from vision.compare.statistics import POWER


def finding(comparison: Comparison, task: str, rows: Sequence[Row], result: TaskResult) -> str:
    """The answer for one task and metric in a sentence; `rows` are those of both."""
    config, metric = comparison.config, result.metric
    baseline, seeds = config.baseline, len(config.seeds)
    plural = "seed" if seeds == 1 else "seeds"
    parts = []
    if baseline in result.diverged:
        lost, count = result.diverged[baseline]
        parts.append(
            f"{baseline}, to which all are compared, diverges ({lost} of {count}), so nothing is "
            "decided"
        )
    for verdict in ("better", "worse"):
        names = [row.variant for row in rows if row.verdict == verdict]
        if names:
            parts.append(f"{_list(names)} {_is(names)} {verdict} than {baseline}")
    names = [row.variant for row in rows if row.verdict == "equivalent"]
    if names:
        parts.append(
            f"{_list(names)} {_is(names)} equivalent to {baseline} within ±{metric.margin:g}"
        )
    undecided = [row for row in rows if row.verdict == "undecided"]
    if undecided and baseline not in result.diverged:
        names = [row.variant for row in undecided]
        parts.append(f"undecided: {_list(names)}{_smallest(undecided, f'{seeds} {plural}')}")
    diverging = [row for row in rows if row.diverges and row.variant != baseline]
    if diverging:
        parts.append(_list([f"{row.variant} {row.verdict}" for row in diverging]))
    names = [row.variant for row in rows if row.verdict == "no results"]
    if names:
        parts.append(f"no results of {_list(names)}")
    return f"{task} ({metric.name}, {seeds} {plural}): {'; '.join(parts) or 'nothing to compare'}."


def notes(
    comparison: Comparison, task: str, rows: Sequence[Row], results: Sequence[TaskResult]
) -> list[str]:
    """What to know before reading the table of a task."""
    grid = comparison.config.tasks[task]
    result, *more = results
    found = [
        f"{'Higher' if r.metric.higher_is_better else 'Lower'} {r.metric.name} is better."
        for r in results
    ]
    if more:
        found.append(
            "Metrics named evaluate/ are of the last weights; accuracy under corruptions is the "
            "mean over severities 1 to 5. The margin, and what is said of the test set, are of "
            f"{grid.metric} alone; for the others the error of a finite test set is left out."
        )
    if result.unit is not None:
        found.append(f"One image of the split is {result.unit:.2g} points.")
    found.append(result.test_set)
    found.append(
        f'"can show": the smallest difference that this many seeds show in {POWER:.0%} of '
        "comparisons like this one."
    )
    if grid.margin is None:
        found.append("The grid states no margin, so no norm can be called equivalent.")
    else:
        found.append(
            f"Differences within ±{grid.margin:g} count as none, by the grid's margin; \"seeds for "
            'margin": how many would show a difference of that size as surely.'
        )
    found.append(_cost_note(comparison, task, rows))
    if result.diverged:
        found.append("† of the seeds that did not diverge, which is a selection.")
    return found


def _cost_note(comparison: Comparison, task: str, rows: Sequence[Row]) -> str:
    """Where time and memory come from, or why they are not shown."""
    costs, baseline = comparison.costs, comparison.config.baseline
    if costs is None:
        return (
            "Time and memory are not shown: the grid names no measurement of them (costs: FILE), "
            "and what runs take that share the machine does not tell norms apart. Measure alone: "
            f"{COMMAND}"
        )
    base = comparison.cost(task, baseline)
    if base is None:
        return f"Time and memory are not shown: {baseline} was not measured {costs.where}."
    missing = [row.variant for row in rows if row.time is None]
    return (
        f"Time and memory of a training step relative to {baseline}'s: of {base['model']} at batch "
        f"{base['batch']} in {base['dtype']}, measured apart from these runs {costs.where}."
        + (f" Not measured with their options: {_list(missing)}." if missing else "")
    )


def _smallest(rows: Sequence[Row], seeds: str) -> str:
    """The smallest difference to the baseline that so many seeds show, where least and most."""
    known = {r.variant: r.effect.smallest for r in rows if r.effect and r.effect.smallest}
    if not known:
        return ""
    most = max(known, key=lambda label: known[label])
    text = f"{seeds} show differences from {min(known.values()):.2g}"
    return f" ({text}{f', for {most} from {known[most]:.2g}' if len(known) > 1 else ''})"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def _is(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
