"""Benchmark results as a table, as JSON and as a bar plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vision.environment import environment_record

if TYPE_CHECKING:
    from rich.table import Table

    from vision.benchmark.data import DataResult
    from vision.benchmark.diagnostics import DiagnosticsResult
    from vision.benchmark.mae import MaeResult
    from vision.benchmark.models import ModelResult
    from vision.benchmark.norms import NormResult


def norms_table(results: Sequence[NormResult]) -> Table:
    """One line per norm, implementation and shape."""
    lines = [
        [
            f"{r.shape} {r.rows} x {r.dim}",
            r.norm,
            r.implementation,
            f"{r.forward * 1e3:.3g}",
            f"{r.forward_ratio:.2f}",
            f"{r.forward_copy_share:.0%}",
            f"{r.forward_backward * 1e3:.3g}",
            f"{r.forward_backward_ratio:.2f}",
            f"{r.forward_backward_copy_share:.0%}",
            f"{r.saved_bytes / 2**20:.1f}",
        ]
        for r in results
    ]
    titles = ["shape", "norm", "by", "fwd ms", "/LN", "of copy", "f+b ms", "/LN", "of copy"]
    return _table([*titles, "saved MiB"], lines, left=3)


def models_table(results: Sequence[ModelResult]) -> Table:
    """One line per norm."""
    first = results[0].norm
    lines = [
        [
            r.norm,
            f"{r.step * 1e3:.0f}",
            f"{r.step_ratio:.3f}",
            f"{r.peak_bytes / 2**20:.0f}",
            f"{r.peak_ratio:.3f}",
        ]
        for r in results
    ]
    return _table(["norm", "step ms", f"/{first}", "peak MiB", f"/{first}"], lines, left=1)


def mae_table(results: Sequence[MaeResult]) -> Table:
    """One line per kind of step."""
    lines = [
        [
            "supervised"
            if r.decoder_depth is None
            else f"MAE, mask ratio 0.75, decoder of {r.decoder_depth} blocks",
            f"{r.step * 1e3:.0f}",
            f"{r.step_ratio:.3f}",
        ]
        for r in results
    ]
    title = f"{results[0].model}, batch {results[0].batch}"
    return _table([title, "step ms", "ratio"], lines, left=1)


def diagnostics_table(results: Sequence[DiagnosticsResult]) -> Table:
    """One line per norm."""
    lines = [
        [r.norm, f"{r.step * 1e3:.0f}", f"{r.watched * 1e3:.0f}", f"{r.step_ratio:.3f}"]
        for r in results
    ]
    title = f"{results[0].model}, batch {results[0].batch}"
    ratio = f"ratio, one in {results[0].every_n_steps} watched"
    return _table([title, "step ms", "watched step ms", ratio], lines, left=1)


def data_table(results: Sequence[DataResult]) -> Table:
    """One line per loader."""
    lines = [
        [
            r.loader,
            f"{r.images_per_sec:.0f}",
            f"{r.ratio:.3f}",
            *(f"{seconds * 1e3:.2f}" for seconds in (r.decode, r.augment, r.collate)),
        ]
        for r in results
    ]
    first = results[0]
    title = f"{first.workers} workers, batch {first.batch}, {first.img_size} pixels"
    steps = ["decode ms", "augment ms", "collate ms"]
    return _table([title, "images/s", "ours / it", *steps], lines, left=1)


def write_json(
    results: Sequence[NormResult | ModelResult | MaeResult | DiagnosticsResult | DataResult],
    path: Path,
) -> None:
    """The results and what they were measured on."""
    record = {"environment": environment_record(), "results": [asdict(r) for r in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def plot(results: Sequence[NormResult | ModelResult], path: Path) -> None:
    """Bars of time relative to LayerNorm (or the first norm), grouped by shape."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    bars: dict[str, dict[str, float]] = {}  # group -> label -> ratio
    for r in results:
        values = asdict(r)
        label = " ".join(values[key] for key in ("norm", "implementation") if key in values)
        ratio = values["forward_backward_ratio" if "shape" in values else "step_ratio"]
        bars.setdefault(values.get("shape", values.get("model", "")), {})[label] = ratio
    labels = list(next(iter(bars.values())))
    figure, axis = plt.subplots(figsize=(3 + 2.2 * len(bars), 5), layout="constrained")
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        at = [group + (number - (len(labels) - 1) / 2) * width for group in range(len(bars))]
        axis.bar(at, [values[label] for values in bars.values()], width, label=label)
    axis.axhline(1, color="black", linewidth=0.8)
    axis.set_xticks(range(len(bars)), list(bars))
    axis.set(ylabel="time, forward and backward, relative to LayerNorm")
    axis.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> Table:
    """The first `left` columns are text, the others numbers."""
    from rich.table import Table

    table = Table()
    for number, title in enumerate(titles):
        table.add_column(title, justify="left" if number < left else "right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table
