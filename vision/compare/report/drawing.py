"""What all pictures of a report share. Each is a PNG in a `data:` address: the page needs no files.

No picture is wider than a phone can show with letters that can be read.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vision.compare.report.collect import Comparison

WIDTH = 5.2  # inches; letters of 10 points are 9.6 pixels high on a screen of 390
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


def canvas(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def address(figure: Figure) -> str:
    """The figure as a `data:` address."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=150)
    return _encode(out.getvalue())


def embed(file: Path) -> str:
    """A PNG file as a `data:` address."""
    return _encode(file.read_bytes())


def _encode(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
