"""What the norms do over depth and time: `diagnostics.csv` as heat maps, all norms on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from vision.compare.report.collect import Comparison, Run
from vision.compare.report.drawing import WIDTH, address
from vision.text import picture_text
from vision.training.callbacks.metrics_csv import read_metrics

MEANINGS = {
    "input_rms": "root mean square of what comes into the norm",
    "output_rms": "root mean square of what leaves it",
    "dynamic_mean": "SeeDNorm: mean of tanh(x·β) over tokens and heads",
    "dynamic_std": "SeeDNorm: standard deviation of tanh(x·β) over tokens and heads",
    "dynamic_saturated": "SeeDNorm: fraction of tanh(x·β) beyond ±0.99",
    "saturated": "DyT, Derf and others that squash: fraction of their values beyond ±0.99",
}
_COLUMNS = 2  # of panels; more are not legible on a phone
_LOG = 20  # a scale whose ends differ by more than this factor is logarithmic


@dataclass(frozen=True)
class HeatMap:
    """One metric of all norms that have it; `picture` is None where all of it is zero."""

    metric: str
    meaning: str
    picture: str | None


@dataclass(frozen=True)
class _Field:
    """Values [layers, steps] of one run, NaN where it has none."""

    layers: list[str]
    steps: list[int]
    values: np.ndarray


def heat_maps(comparison: Comparison, task: str) -> list[HeatMap]:
    """One for each metric that a norm has, from the first run of each variant."""
    firsts = {label: comparison.of(task, label)[:1] for label in comparison.config.rows()}
    tables = {label: _read(runs[0]) for label, runs in firsts.items() if runs}
    found = []
    for metric, meaning in MEANINGS.items():
        fields = {
            label: field
            for label, rows in tables.items()
            if (field := _field(rows, metric)) is not None
        }
        if fields:
            nothing = not any(np.nan_to_num(field.values).any() for field in fields.values())
            picture = None if nothing else _draw(fields, metric)
            found.append(HeatMap(metric, meaning, picture))
    return found


def _draw(fields: Mapping[str, _Field], metric: str) -> str:
    every = np.concatenate([field.values.ravel() for field in fields.values()])
    every = every[np.isfinite(every)]
    low, high = float(every.min()), float(every.max())
    log = low > 0 and high > _LOG * low
    scale = (LogNorm if log else Normalize)(low, high)
    columns = min(_COLUMNS, len(fields))
    lines = -(-len(fields) // columns)
    deepest = max(len(field.layers) for field in fields.values())
    height = max(0.8, 0.06 * deepest)  # inches of a panel
    figure = Figure(figsize=(WIDTH, lines * (0.4 + height) + 0.9), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axis in grid.flat[len(fields) :]:
        axis.axis("off")
    for number, (axis, (label, field)) in enumerate(zip(grid.flat, fields.items(), strict=False)):
        image = axis.imshow(
            field.values, norm=scale, aspect="auto", interpolation="nearest", cmap="cividis"
        )
        axis.set_title(label, fontsize=9)
        ticks = np.unique(np.linspace(0, len(field.steps) - 1, 3).astype(int))
        axis.set_xticks(ticks, [str(field.steps[i]) for i in ticks], fontsize=8)
        labels = min(len(field.layers), int(height / 0.14))
        shown = np.unique(np.linspace(0, len(field.layers) - 1, labels).astype(int))
        names = [picture_text(field.layers[i]) for i in shown] if number % columns == 0 else []
        axis.set_yticks(shown if names else [], names, fontsize=7)
    figure.supxlabel("optimizer step", fontsize=9)
    bar = figure.colorbar(image, ax=grid, location="top", shrink=0.8, aspect=40)
    bar.set_label(metric + (" (log scale)" if log else ""), fontsize=9)
    return address(figure)


def _read(run: Run) -> dict[int, dict[str, float]]:
    file: Path = run.folder / "diagnostics.csv"
    return read_metrics(file) if file.is_file() else {}


def _field(rows: dict[int, dict[str, float]], metric: str) -> _Field | None:
    names = dict.fromkeys(name for row in rows.values() for name in row)
    layers = [n.rpartition("/")[0] for n in names if n.rpartition("/")[2] == metric]
    if not layers:
        return None
    layers.sort(key=_depth)
    steps = sorted(rows)
    values = [[rows[step].get(f"{layer}/{metric}", np.nan) for step in steps] for layer in layers]
    return _Field(layers, steps, np.array(values))


def _depth(layer: str) -> tuple[bool, bool, list[int], str]:
    """A decoder after its encoder; blocks by number, what has none (the final norm) after them."""
    numbers = [int(part) for part in layer.split(".") if part.isdigit()]
    return layer.startswith("decoder"), not numbers, numbers, layer
