"""Pictures: learning curves and confusion matrices."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from vision.callbacks.metrics_csv import read_metrics


def plot_curves(metrics: Path, target: Path, title: str, best: str = "val/top1") -> None:
    """Loss (left) and accuracy in percent (right) over optimizer steps, from a metrics.csv."""
    rows = read_metrics(metrics)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, suffix in ((left, "loss"), (right, "top1")):
        # the test figures are single points at the end
        curves = {k for row in rows.values() for k in row if not k.startswith("test/")}
        for key in sorted(k for k in curves if k.endswith(suffix)):
            points = [(step, row[key]) for step, row in sorted(rows.items()) if key in row]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=key)
        axis.set(xlabel="optimizer step")
        axis.grid(alpha=0.3)
        if axis.has_data():
            axis.legend()
    left.set(ylabel="cross-entropy (nats)", yscale="log")
    right.set(ylabel="top-1 accuracy (%)")
    tops = [row[best] for row in rows.values() if best in row]
    if tops:
        right.set_title(f"best {best} {max(tops):.2f} %")
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
    temporary = target.with_name(f"{target.stem}.tmp{target.suffix}")
    figure.savefig(temporary, dpi=150)
    plt.close(figure)
    temporary.replace(target)
