"""The results of a comparison as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from vision.compare.report.collect import Comparison, Run
from vision.compare.report.drawing import address, canvas, style
from vision.compare.report.tables import Row
from vision.compare.schema import CORRUPTIONS, EVALUATE
from vision.compare.winners import tuning_metric
from vision.text import picture_text

_TICKS = 6  # values that were tried are named on the axis where they are no more


def forest(comparison: Comparison, task: str, rows: Sequence[Row]) -> str | None:
    """Differences to the baseline with their intervals, on the band of the margin.

    None where there is nothing to draw. What diverged is hollow and has no interval.
    """
    drawn = [row for row in rows if row.effect is not None]
    if all(row.effect is None or row.effect.difference is None for row in drawn):
        return None
    grid = comparison.config.tasks[task]
    figure, axis = canvas(1.2 + 0.36 * len(drawn))
    if grid.margin is not None:
        band = f"no difference: within ±{grid.margin:g}"
        axis.axvspan(-grid.margin, grid.margin, color="#999999", alpha=0.25, lw=0, label=band)
        figure.legend(loc="outside upper right", fontsize=8, frameon=False)
    axis.axvline(0, color="black", lw=1)
    for place, row in enumerate(drawn):
        effect, look = row.effect, style(comparison, row.variant)
        if effect is None or effect.difference is None:
            continue
        if effect.low is not None and effect.high is not None:
            axis.hlines(place, effect.low, effect.high, color=look["color"], lw=2)
        face = "white" if row.diverges else look["color"]
        axis.plot(effect.difference, place, ms=7, mfc=face, **look)
    axis.set_yticks(range(len(drawn)), [f"{row.variant}: {row.verdict}" for row in drawn])
    axis.set_ylim(len(drawn) - 0.4, -0.6)
    better = "right" if grid.higher_is_better else "left"
    metric = picture_text(grid.metric)
    axis.set_xlabel(
        f"{metric}: difference to {comparison.config.baseline}\n(better to the {better})"
    )
    axis.grid(alpha=0.3, axis="x")
    return address(figure)


def tuning_curve(comparison: Comparison, task: str) -> str | None:
    """The best trial at each value of the first key with two numbers or more, line by variant."""
    searches = {label: comparison.search(task, label) for label in comparison.config.rows()}
    points = [s.values for search in searches.values() for s in search.tried]
    keys = dict.fromkeys(key for values in points for key in values)
    numbers = {
        key: {v[key] for v in points if key in v and isinstance(v[key], int | float)}
        for key in keys
    }
    key = next((key for key, values in numbers.items() if len(values) > 1), None)
    if key is None:
        return None
    figure, axis = canvas(3.4)
    choose = max if comparison.config.tasks[task].higher_is_better else min
    for label, search in searches.items():
        best: dict[float, float] = {}
        for setting in search.tried:
            if setting.value is not None and key in setting.values:
                x = setting.values[key]
                best[x] = choose(best.get(x, setting.value), setting.value)
        axis.plot(
            sorted(best), [best[x] for x in sorted(best)], label=label, **style(comparison, label)
        )
    values = numbers[key]
    scale = "log" if min(values) > 0 and max(values) / min(values) > 5 else "linear"
    ylabel = picture_text(tuning_metric(comparison.config, task))
    axis.set(xlabel=key + (" (log scale)" if scale == "log" else ""), ylabel=ylabel, xscale=scale)
    if len(values) <= _TICKS:
        axis.set_xticks(sorted(values), [f"{value:g}" for value in sorted(values)])
        axis.set_xticks([], minor=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return address(figure)


def training_curve(comparison: Comparison, task: str, metric: str) -> str | None:
    """Mean over seeds with the range between the extremes, a line per variant.

    None where it was logged at fewer than two steps.
    """
    runs = {label: comparison.of(task, label) for label in comparison.config.rows()}
    rows = [row for members in runs.values() for run in members for row in run.metrics.items()]
    if len({step for step, row in rows if metric in row}) < 2:
        return None
    figure, axis = canvas(3.4)
    for variant, members in runs.items():
        steps, values = _by_step(members, metric)
        if len(steps) == 0:
            continue
        look = style(comparison, variant)
        axis.plot(
            steps,
            np.nanmean(values, 0),
            label=variant,
            markevery=max(1, len(steps) // 5),
            ms=4,
            **look,
        )
        low, high = np.nanmin(values, 0), np.nanmax(values, 0)
        axis.fill_between(steps, low, high, alpha=0.15, color=look["color"])
    scale = "log" if "loss" in metric else "linear"
    ylabel = metric + (" (log scale)" if scale == "log" else "")
    axis.set(xlabel="optimizer step", ylabel=ylabel, yscale=scale)
    if scale == "log":
        low, high = axis.get_ylim()
        between = StrMethodFormatter("{x:g}") if high < 10 * low else NullFormatter()
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(between)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return address(figure)


def seed_dots(comparison: Comparison, task: str) -> str | None:
    """Every run's final metric as a mark, a line per variant, their mean as a bar."""
    labels = [label for label in comparison.config.rows() if comparison.values(task, label)]
    if not labels:
        return None
    figure, axis = canvas(0.9 + 0.36 * len(labels))
    for place, label in enumerate(labels):
        values = list(comparison.values(task, label).values())
        axis.plot(values, [place] * len(values), ls="", alpha=0.7, **style(comparison, label))
        axis.vlines(float(np.mean(values)), place - 0.3, place + 0.3, color="black")
    axis.set_yticks(range(len(labels)), labels)
    axis.set(
        xlabel=picture_text(comparison.config.tasks[task].metric), ylim=(len(labels) - 0.4, -0.6)
    )
    axis.grid(alpha=0.3, axis="x")
    return address(figure)


def corruptions_by_type(comparison: Comparison, task: str) -> str | None:
    """Top-1 under each type of corruption, a mark per variant; None where it was not evaluated."""
    prefix = f"{EVALUATE}{CORRUPTIONS}/"
    rows = comparison.config.rows()
    runs = [run for label in rows for run in comparison.of(task, label)]
    types = list(dict.fromkeys(k for r in runs for k in r.evaluated if k.startswith(prefix)))
    if not types:
        return None
    means = {
        label: [_mean(comparison.values(task, label, name).values()) for name in types]
        for label in rows
    }
    order = np.argsort(np.nan_to_num([np.nanmean(c) for c in zip(*means.values(), strict=True)]))
    figure, axis = canvas(1.4 + 0.3 * len(types) + 0.12 * len(rows))
    for label, values in means.items():
        drawn = [values[i] for i in order]
        axis.plot(drawn, range(len(types)), ls="", label=label, **style(comparison, label))
    axis.set_yticks(range(len(types)), [picture_text(types[i].removeprefix(prefix)) for i in order])
    axis.set(xlabel="top-1 (%), mean over severities 1 to 5", ylim=(len(types) - 0.4, -0.6))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return address(figure)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan


def _by_step(runs: Sequence[Run], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [S], and values [runs, S] with NaN where a run has none."""
    with_it = [r.metrics for r in runs if any(metric in row for row in r.metrics.values())]
    steps = sorted({s for rows in with_it for s, row in rows.items() if metric in row})
    values = [[rows.get(s, {}).get(metric, np.nan) for s in steps] for rows in with_it]
    return np.array(steps), np.array(values)
