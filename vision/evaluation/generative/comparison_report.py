"""What `tools/fid.py` does: open two image sets, compare them, print and write the result."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vision.diffusion.generate import Sampling
from vision.environment import choose_device, process_group, torchrun_rank
from vision.errors import ConfigError
from vision.evaluation.generative.compare import compare_image_sets, with_statistics
from vision.evaluation.generative.extractors import create_extractor
from vision.evaluation.generative.image_set import open_image_set
from vision.evaluation.generative.saved_statistics import StatisticsCache, write_statistics
from vision.files import check_writable, write_json
from vision.metrics.base import Options
from vision.registry import METRICS
from vision.text import printable, show


def report_comparison(arguments: dict[str, Any]) -> None:
    """Compare what the command line names. Raises ConfigError for what its user can mend."""
    for key in ("json", "save_stats"):
        if arguments[key] is not None and torchrun_rank()[0] == 0:
            check_writable(Path(arguments[key]))
    try:
        device = choose_device(arguments["device"])
        with process_group(device):
            result = _compare(arguments, device)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    if torchrun_rank()[0] != 0:
        return
    print_result(result)
    if arguments["json"] is not None:
        path = Path(arguments["json"])
        write_json(path, result)
        show(f"written {path}")


def _compare(arguments: dict[str, Any], device: torch.device) -> dict[str, Any]:
    given = {
        field.name: arguments[field.name]
        for field in dataclasses.fields(Options)
        if arguments.get(field.name) is not None
    }
    options = Options(**(given | {"metrics": tuple(arguments["metrics"].split(","))}))
    # the extractor first: a missing file of weights is reported before anything is read
    extractor = create_extractor(arguments["extractor"], arguments["weights"], arguments["resize"])
    extractor.model.to(device)
    sampling = Sampling(
        sampler=arguments["sampler"],
        num_inference_steps=arguments["steps"],
        guidance_scale=arguments["guidance"],
        seed=options.seed,
    )
    split, overrides = arguments["split"], arguments["overrides"]
    shared: dict[str, Any] = {"sampling": sampling, "device": device}
    shared["num_workers"] = arguments["num_workers"]
    real = open_image_set(arguments["real"], overrides, split, number=options.real_number, **shared)
    fake_split = arguments["fake_split"] or split
    fake = open_image_set(arguments["fake"], overrides, fake_split, number=options.number, **shared)
    cache = StatisticsCache(arguments["cache"]) if arguments["cache"] != "off" else None
    if arguments["save_stats"] is not None:
        real = with_statistics(real, extractor, options, cache)
        assert real.statistics is not None
        if torchrun_rank()[0] == 0:
            write_statistics(Path(arguments["save_stats"]), real.statistics)
    return compare_image_sets(
        real, fake, extractor, device=device, cache=cache, quiet=True, **vars(options)
    )


def print_result(result: dict[str, Any]) -> None:
    """A table of the metrics with their errors, then the images, the time and the warnings."""
    settings, seconds = result["settings"], result["seconds"]
    names = (escape(printable(settings[key]["name"])) for key in ("fake", "real"))
    table = Table(title=" against ".join(names))
    for name in ("metric", "value", "±"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name in settings["metrics"]:
        for output in METRICS.get(name).outputs:
            error = result.get(output.error or "")
            value = f"{result[output.key]:.6g}"
            label = escape(result["labels"][output.key])
            table.add_row(label, value, f"{error:.2g}" if error else "")
    Console().print(table)
    counts = [settings[key]["count"] for key in ("real", "fake")]
    real, fake = ("?" if count is None else f"{count:,}" for count in counts)
    percent = 100 * sum(seconds["metrics"].values()) / seconds["total"]
    show(
        f"{real} real and {fake} fake images, {settings['extractor']}, "
        f"resize {settings['resize']}, {seconds['total']:.1f} s ({percent:.0f} % for the metrics)"
    )
    for line in result["warnings"]:
        show(f"warning: {line}")
