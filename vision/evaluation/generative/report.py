"""What `tools/fid.py` does: open, compute, print, write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from vision.environment import choose_device, process_group, torchrun_rank
from vision.errors import ConfigError
from vision.evaluation.generative.cache import StatisticsCache
from vision.evaluation.generative.compute import Options, compute, measure_real
from vision.evaluation.generative.extractors import open_extractor
from vision.evaluation.generative.npz import write_measured
from vision.evaluation.generative.open import Sampling, open_source
from vision.files import write_json

_ERRORS = {"fid": "fid_error", "is": "is_std", "kid": "kid_std"}


def run(arguments: dict[str, Any]) -> None:
    """Compare what the command line names. Raises ConfigError for what a person can mend."""
    try:
        device = choose_device(arguments["device"])
        with process_group(device):
            result = _compare(arguments, device)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    rank, _ = torchrun_rank()
    if rank != 0:
        return
    _print(result)
    if arguments["json"] is not None:
        path = Path(arguments["json"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
        print(f"written {path}")


def _compare(arguments: dict[str, Any], device: torch.device) -> dict[str, Any]:
    given = {
        field.name: arguments[field.name]
        for field in dataclasses.fields(Options)
        if arguments.get(field.name) is not None
    }
    given["metrics"] = tuple(arguments["metrics"].split(","))
    options = Options(**given)
    # the extractor first: a missing file of weights is told before anything is read
    extractor = open_extractor(arguments["extractor"], arguments["weights"], arguments["resize"])
    extractor.model.to(device)
    sampling = Sampling(
        number=options.number or Sampling.number,
        seed=options.seed,
        guidance_scale=arguments["guidance"],
        num_inference_steps=arguments["steps"],
        sampler=arguments["sampler"],
    )
    split, overrides = arguments["split"], arguments["overrides"]
    shared = {"sampling": sampling, "num_workers": arguments["num_workers"], "device": device}
    real = open_source(arguments["real"], overrides, split, **shared)
    fake = open_source(arguments["fake"], overrides, arguments["fake_split"] or split, **shared)
    cache = StatisticsCache(arguments["cache"]) if arguments["cache"] != "off" else None
    if arguments["save_stats"] is not None:
        real = measure_real(real, extractor, options, cache)
        assert real.measured is not None
        rank, _ = torchrun_rank()
        if rank == 0:
            write_measured(Path(arguments["save_stats"]), real.measured)
    return compute(real, fake, extractor, device=device, cache=cache, quiet=True, **vars(options))


def _print(result: dict[str, Any]) -> None:
    settings = result["settings"]
    table = Table(title=f"{settings['fake']['name']} against {settings['real']['name']}")
    for name in ("figure", "value", "±"):
        table.add_column(name, justify="left" if name == "figure" else "right")
    errors = set(_ERRORS.values())
    for key, label in result["labels"].items():
        if key not in errors:
            error = result.get(_ERRORS.get(key, ""))
            table.add_row(_escaped(label), f"{result[key]:.6g}", f"{error:.2g}" if error else "")
    console = Console()
    console.print(table)
    seconds = result["seconds"]
    print(
        f"{settings['real']['count']:,} real and {settings['fake']['count']:,} fake images, "
        f"{settings['extractor']}, resize {settings['resize']}, {seconds['total']:.1f} s "
        f"({100 * seconds['matrix_root_share']:.0f} % for matrix roots)"
    )
    for line in result["warnings"]:
        print(f"warning: {line}")


def _escaped(label: str) -> str:
    return label.replace("[", r"\[")  # rich reads brackets as styles
