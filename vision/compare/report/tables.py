"""The comparison as rows, and the rows as Markdown, LaTeX and CSV, and in a terminal."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from vision.compare.milestones import is_milestone
from vision.compare.report.collect import Comparison, Run
from vision.compare.report.results import TaskResult, task_results
from vision.compare.schema import EVALUATE
from vision.compare.statistics import Effect, mean_and_std
from vision.text import markdown, printable

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%_#{}$"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "†": r"\dag",
}  # fmt: skip
_COSTS = ("time", "memory")
_IN_TERMINAL = ("norm", "difference [95 %]", "verdict", "mean ± std")
_SURVIVORS = " †"  # behind the mean of a variant whose other seeds diverged


@dataclass(frozen=True)
class Row:
    """One variant in one task. Numbers are None where no run has them."""

    task: str
    metric: str
    variant: str  # its label
    runs: str  # "3 of 3", and the states of the others
    mean: float | None
    std: float | None
    values: tuple[float, ...]  # by seed
    effect: Effect | None  # against the baseline; None for itself
    verdict: str  # the effect's; of the baseline empty, or that it diverges
    # further metrics: mean and deviation, and how many finished runs have none (steps to what they
    # never reached)
    columns: dict[str, tuple[tuple[float, float | None] | None, int]]
    parameters: int | None
    time: float | None  # of a training step, measured alone, relative to the baseline
    memory: float | None  # its peak, likewise

    @property
    def diverges(self) -> bool:
        """Whether a seed diverged, so that the mean is that of a selection."""
        return self.verdict.startswith("diverges")


def titles(rows: Sequence[Row]) -> list[str]:
    """Of the columns that `row_texts` fills, the task's first."""
    return [
        "task", "norm", "difference [95 %]", "verdict", "metric", "mean ± std", "by seed", "runs",
        "can show", "seeds for margin", *_further(rows), "parameters", *_COSTS[: 2 * _costed(rows)],
    ]  # fmt: skip


def make_rows(
    comparison: Comparison, results: Mapping[str, Sequence[TaskResult]] | None = None
) -> list[Row]:
    """Every variant of every task by each metric, in the order of the configuration."""
    tasks = comparison.config.tasks
    found = results or {task: task_results(comparison, task) for task in tasks}
    return [
        _row(comparison, task, label, result)
        for task in tasks
        for result in found[task]
        for label in comparison.config.rows()
    ]


def row_texts(row: Row, rows: Sequence[Row]) -> list[str]:
    """The texts of one row, as in `titles(rows)`."""
    effect = row.effect or Effect("")
    return [
        row.task,
        row.variant,
        _difference(effect, row.diverges),
        row.verdict,
        row.metric,
        _mean(None if row.mean is None else (row.mean, row.std)) + _SURVIVORS * row.diverges,
        ", ".join(f"{value:.4g}" for value in row.values),
        row.runs,
        "" if effect.smallest is None else f"{effect.smallest:.2g}",
        _seeds(effect.seeds_for_margin),
        *(_further_text(row, name) for name in _further(rows)),
        "-" if row.parameters is None else f"{row.parameters:,}",
        *("-" if cost is None else f"{cost:.2f}" for cost in (row.time, row.memory)),
    ][: len(titles(rows))]


def to_markdown(rows: Sequence[Row]) -> str:
    """A table; a norm is bold only where it is shown to be better than the baseline."""
    names = [markdown(name) for name in titles(rows)]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        texts = [markdown(text) for text in row_texts(row, rows)]
        if row.verdict == "better":
            texts[1] = f"**{texts[1]}**"
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def to_terminal(rows: Sequence[Row]) -> Group:
    """For rich: a table of each task and metric, of the columns that fit in 80 characters."""
    tables = []
    for (task, metric), members in groupby(rows, key=lambda row: (row.task, row.metric)):
        tables.append(
            Table(title=escape(f"{task}, {metric}"), title_justify="left", box=SIMPLE_HEAD)
        )
        for name in _IN_TERMINAL:
            tables[-1].add_column(name)
        for row in members:
            texts = dict(zip(titles(rows), row_texts(row, rows), strict=True))
            style = "bold" if row.verdict == "better" else None
            tables[-1].add_row(*(escape(texts[name]) for name in _IN_TERMINAL), style=style)
    return Group(*tables)


def to_latex(rows: Sequence[Row]) -> str:
    """A tabular for booktabs."""
    names = titles(rows)
    lines = [r"\begin{tabular}{" + "l" * len(names) + "}", r"\toprule"]
    lines += [" & ".join(map(_escape, names)) + r" \\", r"\midrule"]
    for row in rows:
        texts = [_escape(text) for text in row_texts(row, rows)]
        if row.verdict == "better":
            texts[1] = rf"\textbf{{{texts[1]}}}"
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row, numbers unrounded."""
    out = io.StringIO()
    writer = csv.writer(out)
    names = _further(rows)
    writer.writerow(
        [*"task norm difference low high verdict metric mean std values runs can_show "
         "seeds_for_margin".split(), *names, "parameters", *_COSTS]
    )  # fmt: skip
    for row in rows:
        e = row.effect or Effect("")
        pairs = [row.columns[name][0] if name in row.columns else None for name in names]
        further = [None if pair is None else pair[0] for pair in pairs]
        values = " ".join(map(repr, row.values))
        result = [e.difference, e.low, e.high, row.verdict, row.metric, row.mean, row.std, values]
        seeds = [row.runs, e.smallest, e.seeds_for_margin]
        cost = [row.parameters, row.time, row.memory]
        writer.writerow([row.task, row.variant, *result, *seeds, *further, *cost])
    return out.getvalue()


def _row(comparison: Comparison, task: str, label: str, result: TaskResult) -> Row:
    grid, metric = comparison.config.tasks[task], result.metric.name
    runs = comparison.of(task, label)
    values = list(comparison.values(task, label, metric).values())
    mean, std = mean_and_std(values) if values else (None, None)
    effect = result.effects.get(label)
    verdict = effect.verdict if effect else ""
    if effect is None and label in result.diverged:
        verdict = "diverges ({} of {})".format(*result.diverged[label])
    columns = {}
    finished = sum(run.state == "finished" for run in runs)
    for name in grid.columns if metric == grid.metric else ():
        found = list(comparison.values(task, label, name).values())
        columns[name] = (mean_and_std(found) if found else None, finished - len(found))
    parameters = next((r.summary["parameters"] for r in runs if r.summary), None)
    return Row(
        task, metric, label, _states([_state(run, metric) for run in runs]), mean, std,
        tuple(values), effect, verdict, columns, parameters, *_costs(comparison, task, label),
    )  # fmt: skip


def _costs(comparison: Comparison, task: str, label: str) -> tuple[float | None, float | None]:
    """Time and memory of a training step relative to the baseline's, of one measurement."""
    own = comparison.cost(task, label)
    base = comparison.cost(task, comparison.config.baseline)
    if own is None or base is None or own["model"] != base["model"]:
        return None, None
    return own["step_ratio"] / base["step_ratio"], own["peak_ratio"] / base["peak_ratio"]


def _costed(rows: Sequence[Row]) -> bool:
    return any(row.time is not None for row in rows)


def _further(rows: Sequence[Row]) -> list[str]:
    """Metrics that some task shows besides the compared one."""
    return list(dict.fromkeys(name for row in rows for name in row.columns))


def _further_text(row: Row, name: str) -> str:
    pair, missing = row.columns.get(name, (None, 0))
    return _mean(pair) + (f" ({missing} never)" if missing and is_milestone(name) else "")


def _states(states: list[str]) -> str:
    counts = Counter(states)
    others = [f"{n} {state}" for state, n in counts.items() if state != "finished"]
    return ", ".join([f"{counts['finished']} of {len(states)}", *others])


def _state(run: Run, metric: str) -> str:
    lacks = metric.startswith(EVALUATE) and run.metric(metric) is None
    return "not evaluated" if run.state == "finished" and lacks else run.state


def _mean(pair: tuple[float, float | None] | None) -> str:
    if pair is None:
        return "-"
    return f"{pair[0]:.4g}" + ("" if pair[1] is None else f" ± {pair[1]:.2g}")


def _difference(effect: Effect, survivors: bool) -> str:
    if effect.difference is None:
        return ""
    if effect.low is None or effect.high is None:
        return f"{effect.difference:+.2g}" + _SURVIVORS * survivors
    reach = (effect.high - effect.low) / 2
    places = max(0, 1 - math.floor(math.log10(reach))) if reach > 0 else 2
    values = (f"{v:+.{places}f}" for v in (effect.difference, effect.low, effect.high))
    return "{} [{}, {}]".format(*values)


def _seeds(needed: float | None) -> str:
    if needed is None:
        return ""
    return "out of reach" if math.isinf(needed) else f"{needed:.0f}"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in printable(text))
