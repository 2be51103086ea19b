"""Anatomies as a printed table and as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from vision.errors import ConfigError
from vision.evaluation.anatomy.measure import FACTORS, Anatomy
from vision.evaluation.anatomy.subjects import WARM_UP, measure_named, measure_run
from vision.files import check_writable, written
from vision.norms import list_norms
from vision.text import picture_text, printable, show

_SHOWN = (0.01, 1.0, 100.0)  # factors in the table
_METRICS = {  # title, what the picture adds to it, and the form of numbers in the table
    "output_size": ("output size", " (RMS)", ".3g"),
    "jacobian": ("Jacobian norm", " (RMS singular value)", ".3g"),
    "norm_kept": ("norm kept", " (0: forgotten, 1: output proportional)", ".3f"),
    "saturated": ("saturated", " (fraction within 1 % of the bound)", ".3f"),
}
_DEFINITIONS = """\
output size    root mean square (RMS) of the output
Jacobian norm  RMS singular value of the Jacobian; the identity has 1
norm kept      relative change of the output per relative change of the input's size: 0 if the
               output forgets it, 1 if the output is proportional to the input
saturated      fraction of values where the bounded function is within 1 % of its bound; - if there
               is none"""
# Okabe and Ito's colors without the yellow, told apart in every form of color blindness
_COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
_STYLES = ("-", "--", ":", "-.")


def report_anatomy(
    norms: Sequence[str],
    run: str | None,
    output: Path,
    width: int | None,
    noise: float | None,
    images: int | None,
    seed: int,
) -> None:
    """What `tools/anatomy.py` does: measure, print the table, write the picture.

    None stands for the defaults in --help. Raises ConfigError for what the user can mend.
    """
    check_writable(output)
    try:
        if run is not None:
            images = 8 if images is None else images
            anatomies = measure_run(run, images, seed)
            size = "size of the input, relative to that in the run"
            caption = (
                f"{printable(run)}: every norm on its own input, from {images} validation images"
            )
        else:
            width = 192 if width is None else width
            names = norms or list_norms()
            anatomies = [measure_named(spec, width, noise, seed) for spec in names]
            size = "size of the input (RMS)"
            moved = "1/√width" if noise is None else f"{noise:g}"
            caption = (
                f"random tokens of width {width}; start values, but parameters that take weight "
                f"decay (SeeDNorm's alpha and beta) moved by normal noise of {moved};\nnorms with "
                f"running averages in evaluation mode, after {WARM_UP} training batches at size 1"
            )
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    show(*caption.split("\n"), "", *_table(anatomies).split("\n"), "", *_DEFINITIONS.split("\n"))
    figure = _picture(anatomies, size, caption, ordered=run is not None)
    with written(output) as temporary:
        figure.savefig(temporary, dpi=110, format=output.suffix.removeprefix("."))
    show(f"written        {output}")


def _table(anatomies: Sequence[Anatomy]) -> str:
    """A line per norm; under each metric the input's size, relative to its own."""
    left = max(len(a.name) for a in anatomies)
    columns = [FACTORS.index(factor) for factor in _SHOWN]
    sizes = "".join(f"{f'x{factor:g}':>8}" for factor in _SHOWN)
    titles = "".join(f"  {title:^24}" for title, _, _ in _METRICS.values())
    lines = [f"{'':{left}}  {'':10}  {'':8}{titles}".rstrip()]
    lines += [f"{'norm':{left}}  {'parameters':>10}  {'input':>8}{f'  {sizes}' * len(_METRICS)}"]
    for a in anatomies:
        line = f"{a.name:{left}}  {a.parameters:>10,}  {a.input_size:>8.3g}"
        for metric, (_, _, form) in _METRICS.items():
            values = getattr(a, metric)
            texts = ["-" if values is None else format(values[i], form) for i in columns]
            line += "  " + "".join(f"{text:>8}" for text in texts)
        lines.append(line)
    return "\n".join(lines)


def _picture(anatomies: Sequence[Anatomy], size: str, caption: str, ordered: bool) -> Figure:
    """Four panels over the input's size, a line per norm; `ordered`: colors run with depth."""
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flat
    for axis, (metric, (title, more, _)) in zip(panels, _METRICS.items(), strict=True):
        for a, look in zip(anatomies, _looks(len(anatomies), ordered), strict=False):
            values = getattr(a, metric)
            if values is not None:
                axis.plot(FACTORS, values, label=picture_text(a.name), **look)
        axis.set(xscale="log", title=title + more)
        axis.grid(alpha=0.3)
        if metric in ("output_size", "jacobian"):
            axis.set_yscale("log")
        else:
            axis.set_ylim(-0.03, None if metric == "norm_kept" else 1.03)
    below = "\n".join(map(picture_text, [size, "", *caption.split("\n")]))
    figure.supxlabel(below, fontsize=9)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    rows = 30
    figure.legend(
        handles, labels, loc="outside right upper", fontsize=8, ncols=-(-len(labels) // rows)
    )
    return figure


def _looks(count: int, ordered: bool) -> Iterator[dict[str, object]]:
    """Color and style of each line."""
    if ordered:
        shades = colormaps["viridis"]
        return ({"color": shades(i / max(count, 2))} for i in range(count))
    pairs = zip(itertools.cycle(_COLORS), itertools.cycle(_STYLES), strict=False)
    return ({"color": color, "linestyle": style} for color, style in pairs)  # 28 different ones
