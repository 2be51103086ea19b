"""The comparison as rows, and the rows as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vision.compare.report.collect import Comparison
from vision.compare.report.differences import Difference, mean_and_std, paired_difference


@dataclass(frozen=True)
class Row:
    """One norm in one task. Numbers are None where no run has them."""

    task: str
    metric: str
    norm: str
    runs: str  # "3 of 3", and the states of the others
    mean: float | None
    std: float | None
    values: tuple[float, ...]  # by seed
    difference: Difference | None  # to the baseline; None for itself
    verdict: str  # better, worse, undecided, no results; empty for the baseline
    parameters: int | None
    speed: float | None  # images per second, relative to the baseline
    memory: float | None  # peak bytes, relative to the baseline


TITLES = (
    "task", "norm", "runs", "metric", "mean ± std", "by seed", "difference [95 %]",
    "verdict", "parameters", "speed", "memory",
)  # fmt: skip


def make_rows(comparison: Comparison) -> list[Row]:
    """Every norm of every task, in the order of the configuration."""
    return [
        _row(comparison, task, norm)
        for task in comparison.config.tasks
        for norm in comparison.config.norms
    ]


def row_texts(row: Row) -> list[str]:
    """The texts of one row, as in `TITLES`."""
    mean = "-" if row.mean is None else f"{row.mean:.4g}"
    spread = "" if row.std is None else f" ± {row.std:.2g}"
    return [
        row.task,
        row.norm,
        row.runs,
        row.metric,
        mean + spread,
        ", ".join(f"{value:.4g}" for value in row.values),
        _difference(row.difference),
        row.verdict,
        "-" if row.parameters is None else f"{row.parameters:,}",
        "-" if row.speed is None else f"{row.speed:.2f}",
        "-" if row.memory is None else f"{row.memory:.2f}",
    ]


def to_markdown(rows: Sequence[Row]) -> str:
    """A table; a norm is bold only where its interval lies on the better side of zero."""
    lines = ["| " + " | ".join(TITLES) + " |", "|" + "---|" * len(TITLES)]
    for row in rows:
        texts = row_texts(row)
        if row.verdict == "better":
            texts[4] = f"**{texts[4]}**"
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def to_latex(rows: Sequence[Row]) -> str:
    """A tabular for booktabs."""
    lines = [r"\begin{tabular}{" + "l" * len(TITLES) + "}", r"\toprule"]
    lines += [" & ".join(map(_escape, TITLES)) + r" \\", r"\midrule"]
    for row in rows:
        texts = [_escape(text) for text in row_texts(row)]
        if row.verdict == "better":
            texts[4] = rf"\textbf{{{texts[4]}}}"
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_csv(rows: Sequence[Row]) -> str:
    """One line per row, numbers unrounded."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(
        "task norm runs metric mean std values difference low high verdict parameters speed "
        "memory".split()
    )
    for row in rows:
        d = row.difference
        interval = [d.mean, d.low, d.high] if d else [None] * 3
        values = " ".join(map(repr, row.values))
        result = [row.metric, row.mean, row.std, values, *interval, row.verdict]
        cost = [row.parameters, row.speed, row.memory]
        writer.writerow([row.task, row.norm, row.runs, *result, *cost])
    return out.getvalue()


def _row(comparison: Comparison, task: str, norm: str) -> Row:
    config = comparison.config
    grid = config.tasks[task]
    runs = comparison.of(task, norm)
    values = comparison.values(task, norm)
    mean, std = mean_and_std(list(values.values())) if values else (None, None)
    difference, verdict = None, ""
    if norm != config.baseline:
        difference = paired_difference(values, comparison.values(task, config.baseline))
        verdict = "undecided" if difference is not None else "no results"
        if difference is not None and difference.decided:
            verdict = "better" if (difference.mean > 0) == grid.higher_is_better else "worse"
    parameters = next((r.summary["parameters"] for r in runs if r.summary), None)
    speeds, memories = (
        _relative(comparison, task, norm, what) for what in ("images_per_sec", "peak_memory_bytes")
    )
    return Row(
        task, grid.metric, norm, _states([r.state for r in runs]), mean, std,
        tuple(values.values()), difference, verdict, parameters, speeds, memories,
    )  # fmt: skip


def _relative(comparison: Comparison, task: str, norm: str, what: str) -> float | None:
    """Mean of `what` over a norm's runs, relative to the baseline's mean."""
    means = []
    for name in (norm, comparison.config.baseline):
        runs = comparison.of(task, name)
        if what == "images_per_sec":
            found = [r.images_per_sec for r in runs if r.summary]
        else:
            found = [r.summary.get(what) for r in runs]
        present = [value for value in found if value]
        if not present:
            return None
        means.append(sum(present) / len(present))
    return means[0] / means[1]


def _states(states: list[str]) -> str:
    counts = Counter(states)
    others = [f"{n} {state}" for state, n in counts.items() if state != "finished"]
    return ", ".join([f"{counts['finished']} of {len(states)}", *others])


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return ""
    if difference.low is None:
        return f"{difference.mean:+.2g}"
    return f"{difference.mean:+.2g} [{difference.low:+.2g}, {difference.high:+.2g}]"


def _escape(text: str) -> str:
    for mark in "&%_#":
        text = text.replace(mark, "\\" + mark)
    return text.replace("±", r"$\pm$")
