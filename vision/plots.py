"""Pictures: learning curves and confusion matrices."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from vision.callbacks.metrics_csv import read_metrics
from vision.files import written


def plot_curves(metrics: Path, target: Path, title: str, curves: dict[str, str]) -> None:
    """Figures over optimizer steps, from a metrics.csv.

    `curves` maps the ending of the figures' names to the label of their axis; one panel each, the
    losses on a logarithmic scale, none where nothing was logged.
    """
    rows = read_metrics(metrics)
    # the test figures are single points at the end
    logged = {k for row in rows.values() for k in row if not k.startswith("test/")}
    panels = {e: names for e in curves if (names := sorted(k for k in logged if k.endswith(e)))}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(5 * len(panels), 4), layout="constrained", squeeze=False
    )
    for axis, (ending, names) in zip(axes[0], panels.items(), strict=True):
        for key in names:
            points = [(step, row[key]) for step, row in sorted(rows.items()) if key in row]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=key)
        axis.set(xlabel="optimizer step", ylabel=curves[ending])
        if ending == "loss":
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    _save(figure, target)


def plot_confusion(counts: np.ndarray, names: list[str], target: Path, title: str) -> None:
    """Confusion matrix [true, predicted]: shares of each true class as colour, counts as text."""
    size = len(counts)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    inches = min(max(4.5, 0.45 * size), 20)
    figure, axis = plt.subplots(figsize=(inches + 1, inches), layout="constrained")
    image = axis.imshow(shares, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    if size <= 30:  # more would not be legible
        axis.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axis.set_yticks(range(size), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                shade = "black" if shares[row, column] > 0.6 else "white"
                axis.text(column, row, str(int(count)), ha="center", va="center", color=shade)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    _save(figure, target)


def _save(figure: plt.Figure, target: Path) -> None:
    with written(target) as temporary:
        figure.savefig(temporary, dpi=150, format=target.suffix.removeprefix("."))
    plt.close(figure)
