"""The comparison as pictures, each a PNG in a `data:` address so that the page needs no files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision.compare.report.collect import Comparison, Run
from vision.compare.report.tables import Row
from vision.compare.winners import tuning_metric
from vision.training.callbacks.metrics_csv import read_metrics

# of Okabe and Ito, told apart by the colour-blind, without the yellow that white hides
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
_MARKERS = "osD^vPX*"


def style(comparison: Comparison, label: str) -> dict[str, Any]:
    """Colour and marker of a variant, the same in every picture."""
    place = list(comparison.config.rows()).index(label)
    count = len(_COLORS)
    return {
        "color": _COLORS[place % count],
        "marker": _MARKERS[(place + place // count) % len(_MARKERS)],
    }


def forest(comparison: Comparison, task: str, rows: Sequence[Row]) -> str | None:
    """Differences to the baseline with their intervals, on the band of the margin.

    None where there is nothing to draw. What diverged is hollow and has no interval.
    """
    drawn = [row for row in rows if row.effect is not None]
    if all(row.effect is None or row.effect.difference is None for row in drawn):
        return None
    grid = comparison.config.tasks[task]
    canvas, axis = _canvas((6.4, 1.2 + 0.36 * len(drawn)))
    if grid.margin is not None:
        band = f"no difference: within ±{grid.margin:g}"
        axis.axvspan(-grid.margin, grid.margin, color="#999999", alpha=0.25, lw=0, label=band)
        canvas.legend(loc="outside upper right", fontsize=8, frameon=False)
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
    axis.set_xlabel(
        f"{grid.metric}: difference to {comparison.config.baseline} (better to the {better})"
    )
    axis.grid(alpha=0.3, axis="x")
    return _address(canvas)


def tuning_curve(comparison: Comparison, task: str) -> str | None:
    """The best trial at each value of the first key with three numbers or more, line by variant."""
    searches = {label: comparison.search(task, label) for label in comparison.config.rows()}
    points = [s.values for search in searches.values() for s in search.tried]
    keys = dict.fromkeys(key for values in points for key in values)
    numbers = {
        key: {v[key] for v in points if key in v and isinstance(v[key], int | float)}
        for key in keys
    }
    key = next((key for key, values in numbers.items() if len(values) > 2), None)
    if key is None:
        return None
    canvas, axis = _canvas((5.4, 3.4))
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
    ylabel = tuning_metric(comparison.config, task)
    axis.set(xlabel=key + (" (log scale)" if scale == "log" else ""), ylabel=ylabel, xscale=scale)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return _address(canvas)


def training_curve(comparison: Comparison, task: str, metric: str) -> str | None:
    """Mean over seeds with the range between the extremes, a line per variant.

    None where nothing was logged.
    """
    runs = {label: comparison.of(task, label) for label in comparison.config.rows()}
    if not any(metric in row for rs in runs.values() for r in rs for row in r.metrics.values()):
        return None
    canvas, axis = _canvas((4.6, 3.4))
    for variant, members in runs.items():
        steps, values = _by_step(members, metric)
        if len(steps) == 0:
            continue
        look = style(comparison, variant)
        axis.plot(steps, np.nanmean(values, 0), label=variant, markevery=0.2, ms=4, **look)
        low, high = np.nanmin(values, 0), np.nanmax(values, 0)
        axis.fill_between(steps, low, high, alpha=0.15, color=look["color"])
    scale = "log" if "loss" in metric else "linear"
    ylabel = metric + (" (log scale)" if scale == "log" else "")
    axis.set(xlabel="optimizer step", ylabel=ylabel, yscale=scale)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return _address(canvas)


def seed_dots(comparison: Comparison, task: str) -> str | None:
    """Every run's final metric as a dot, variants side by side, their mean as a bar."""
    labels = [label for label in comparison.config.rows() if comparison.values(task, label)]
    if not labels:
        return None
    canvas, axis = _canvas((1.2 + 1.1 * len(labels), 3.2))
    for place, label in enumerate(labels):
        values = list(comparison.values(task, label).values())
        axis.plot([place] * len(values), values, ls="", alpha=0.7, **style(comparison, label))
        axis.hlines(float(np.mean(values)), place - 0.25, place + 0.25, color="black")
    axis.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 4 else 0, ha="center")
    axis.set(ylabel=comparison.config.tasks[task].metric, xlim=(-0.6, len(labels) - 0.4))
    axis.grid(alpha=0.3, axis="y")
    return _address(canvas)


def heat_map(run: Run, metric: str) -> str | None:
    """One column of `diagnostics.csv` over depth (downwards) and steps; None where it has none."""
    file = run.folder / "diagnostics.csv"
    if not file.is_file():
        return None
    rows = read_metrics(file)
    layers = [c.rpartition("/")[0] for c in _columns(file) if c.endswith(f"/{metric}")]
    if not layers or not rows:
        return None
    steps = sorted(rows)
    layers.sort(key=_depth)
    values = np.array(
        [[rows[step].get(f"{layer}/{metric}", np.nan) for step in steps] for layer in layers]
    )
    canvas, axis = _canvas((5, 0.9 + 0.16 * len(layers)))
    image = axis.imshow(values, aspect="auto", interpolation="nearest")
    canvas.colorbar(image)
    axis.set_yticks(range(len(layers)), layers, fontsize=6)
    shown = np.linspace(0, len(steps) - 1, min(5, len(steps))).astype(int)
    axis.set_xticks(shown, [str(steps[i]) for i in shown])
    axis.set(xlabel="optimizer step", title=f"{run.cell.variant}: {metric}")
    return _address(canvas)


def embed(file: Path) -> str:
    """A PNG file as a `data:` address."""
    return _encode(file.read_bytes())


def _by_step(runs: Sequence[Run], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [S], and values [runs, S] with NaN where a run has none."""
    with_it = [r.metrics for r in runs if any(metric in row for row in r.metrics.values())]
    steps = sorted({s for rows in with_it for s, row in rows.items() if metric in row})
    values = [[rows.get(s, {}).get(metric, np.nan) for s in steps] for rows in with_it]
    return np.array(steps), np.array(values)


def _columns(file: Path) -> list[str]:
    with file.open(encoding="utf-8") as lines:
        return next(lines).strip().split(",")


def _depth(layer: str) -> list[tuple[int, int, str]]:
    """Blocks by number, what has none (the final norm) after them."""
    parts = layer.split(".")
    numbers = [part for part in parts if part.isdigit()]
    return [(0, int(numbers[0]), layer) if numbers else (1, 0, layer)]


def _canvas(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots()


def _address(canvas: Figure) -> str:
    out = io.BytesIO()
    canvas.savefig(out, format="png", dpi=110)
    return _encode(out.getvalue())


def _encode(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
