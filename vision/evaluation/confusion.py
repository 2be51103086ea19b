"""A confusion matrix as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vision.files import written
from vision.text import picture_text


def plot_confusion(counts: np.ndarray, names: list[str], target: Path, title: str) -> None:
    """Confusion matrix [true, predicted]: colors are fractions of a true class, text is counts."""
    size = len(counts)
    fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    inches = min(max(4.5, 0.45 * size), 20)
    figure = Figure(figsize=(inches + 1, inches), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(fractions, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the true class")
    if size <= 30:  # more would not be legible
        names = [picture_text(name) for name in names]
        axis.set_xticks(range(size), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axis.set_yticks(range(size), names)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                shade = "black" if fractions[row, column] > 0.6 else "white"
                axis.text(column, row, str(int(count)), ha="center", va="center", color=shade)
    axis.set(xlabel="predicted", ylabel="true", title=picture_text(title))
    with written(target) as temporary:
        figure.savefig(temporary, dpi=150, format=target.suffix.removeprefix("."))
