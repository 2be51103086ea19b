"""Learning curves as a picture."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from vision.files import written
from vision.text import picture_text
from vision.training.callbacks.metrics_csv import read_metrics


def plot_curves(metrics: Path, target: Path, title: str, curves: dict[str, str]) -> None:
    """Plot metrics over optimizer steps, from a metrics.csv.

    `curves` maps the ending of metric names to the label of their axis; each gets a panel, unless
    nothing was logged. Losses have a logarithmic axis.
    """
    rows = read_metrics(metrics)
    # test metrics are single points at the end
    logged = {k for row in rows.values() for k in row if not k.startswith("test/")}
    panels = {e: names for e in curves if (names := sorted(k for k in logged if k.endswith(e)))}
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (ending, names) in zip(axes[0], panels.items(), strict=True):
        for key in names:
            points = [(step, row[key]) for step, row in sorted(rows.items()) if key in row]
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=key)
        axis.set(xlabel="optimizer step", ylabel=curves[ending])
        if ending == "loss":
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(picture_text(title))
    with written(target) as temporary:
        figure.savefig(temporary, dpi=150, format=target.suffix.removeprefix("."))
