"""The README.md of an exported classifier, as the Hugging Face hub shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vision.config import Config
from vision.config.load import to_yaml
from vision.notices import metric_text
from vision.text import code, fenced, markdown

_Z = 1.96  # of a 95 % interval


def model_card(config: Config, run: Path | None, loader: str, weights: str | None) -> str:
    """What the model is, what it was trained on and how, its metrics, and how to load it.

    `weights` says which they are. Metrics are those that `tools/evaluate.py` has written into
    `run`; top-1 and top-5 with a 95 % Wilson interval over images
    (https://doi.org/10.1080/01621459.1927.10502953).
    """
    files = [] if run is None else sorted(run.glob("evaluate_*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    options = ", ".join(f"{key}={value}" for key, value in config.norm.options.items())
    norm = config.norm.name + (f" ({options})" if options else "")
    lines = [
        "---",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags: [image-classification, timm]",
        "license: apache-2.0",
        "---",
        f"# {markdown(config.name)}",
        "",
        f"A {code(config.model.name)} of timm with the normalization layer {code(norm)}, trained "
        f"on `{config.data.name}` at {config.data.img_size} pixels. The licence is that of the "
        "code; that of the training data may restrict the weights.",
        *([] if weights is None else ["", f"It holds {markdown(weights)}."]),
        "",
        "## Metrics",
        "",
        *(_table(found) or ["None were computed before the export: `tools/evaluate.py RUN`."]),
        "",
        "## Load",
        "",
        fenced(loader, "python"),
        "",
        "## Recipe",
        "",
        fenced(to_yaml(config).rstrip(), "yaml"),
        "",
        "## Citation",
        "",
        "`CITATION.cff` of the code names the papers behind the normalization layers; timm is "
        "https://doi.org/10.5281/zenodo.4414861.",
    ]
    return "\n".join(lines) + "\n"


def wilson(percent: float, images: int) -> tuple[float, float]:
    """The 95 % interval, in percent, of a fraction counted on `images`."""
    p, n, z2 = percent / 100, images, _Z**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z * (p * (1 - p) / n + z2 / (4 * n * n)) ** 0.5 / (1 + z2 / n)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _table(found: list[dict[str, Any]]) -> list[str]:
    """A row for each metric of each evaluation."""
    rows = ["| split | weights | metric | value | 95 % interval |", "|---|---|---|---:|---:|"]
    for metrics in found:
        stem = Path(metrics["source"]).stem
        weights = f"{stem}, average" if metrics["ema"] else stem
        for key in ("top1", "top5", "loss", "calibration_error"):
            if key not in metrics:
                continue
            low, high = wilson(metrics[key], metrics["images"]) if key.startswith("top") else (0, 0)
            interval = f"{low:.2f} to {high:.2f}" if key.startswith("top") else ""
            row = (metrics["split"], weights, key, metric_text(metrics[key]), interval)
            rows.append("| " + " | ".join(map(markdown, row)) + " |")
    return rows if found else []
