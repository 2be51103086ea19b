"""The comparison as pictures, each a PNG in a `data:` address so that the page needs no files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision.compare.report.collect import Comparison, Run
from vision.training.callbacks.metrics_csv import read_metrics


def training_curve(comparison: Comparison, task: str, metric: str) -> str | None:
    """Mean over seeds with the range between the extremes, a line per norm.

    None where nothing was logged.
    """
    runs = {norm: comparison.of(task, norm) for norm in comparison.config.norms}
    if not any(metric in row for rs in runs.values() for r in rs for row in r.metrics.values()):
        return None
    canvas, axis = _canvas((4.6, 3.4))
    for norm, members in runs.items():
        steps, values = _by_step(members, metric)
        if len(steps) == 0:
            continue
        (line,) = axis.plot(steps, np.nanmean(values, 0), label=norm)
        low, high = np.nanmin(values, 0), np.nanmax(values, 0)
        axis.fill_between(steps, low, high, alpha=0.15, color=line.get_color())
    scale = "log" if "loss" in metric else "linear"
    axis.set(xlabel="optimizer step", ylabel=metric, yscale=scale)
    axis.grid(alpha=0.3)
    axis.legend()
    return _address(canvas)


def seed_dots(comparison: Comparison, task: str) -> str | None:
    """Every run's final metric as a dot, norms side by side, their mean as a bar."""
    norms = [norm for norm in comparison.config.norms if comparison.values(task, norm)]
    if not norms:
        return None
    canvas, axis = _canvas((1.2 + 1.1 * len(norms), 3.2))
    for place, norm in enumerate(norms):
        values = list(comparison.values(task, norm).values())
        axis.plot([place] * len(values), values, "o", alpha=0.7)
        axis.hlines(float(np.mean(values)), place - 0.25, place + 0.25, color="black")
    axis.set_xticks(range(len(norms)), norms)
    axis.set(ylabel=comparison.config.tasks[task].metric, xlim=(-0.6, len(norms) - 0.4))
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
    axis.set(xlabel="optimizer step", title=f"{run.cell.norm}: {metric}")
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
