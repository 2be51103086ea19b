"""What all benchmarks share on the command line: arguments, table and JSON record."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from vision.environment import environment_record
from vision.files import write_json


def add_arguments(
    parser: ArgumentParser, batch: int | None, rounds: int, device: bool = True
) -> None:
    """Add --batch (None: a model's own), --rounds and --json; --dtype and --device if `device`."""
    add = parser.add_argument
    usual = batch or "each model's own"
    add("--batch", type=int, default=batch, help=f"images (default: {usual})")
    add("--rounds", type=int, default=rounds, help="times each is measured (default: %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write the results and the machine")
    if device:
        add("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
        add("--device", help="cpu, cuda, ...; default: the accelerator, if any")


def report(
    results: Sequence[Any],
    columns: Mapping[str, Callable[[Any], str]],
    file: Path | None,
    text_columns: int = 1,
) -> None:
    """Print a table, a row per result; write `results` (dataclasses) and the machine to `file`."""
    table = Table()
    for number, title in enumerate(columns):
        justify: Any = "left" if number < text_columns else "right"
        table.add_column(title, justify=justify, no_wrap=True)
    for result in results:
        table.add_row(*(show(result) for show in columns.values()))
    console = Console()
    # a file or a pipe has no width: lines must not be cut
    Console(width=None if console.is_terminal else max(console.width, 200)).print(table)
    write_record(results, file)


def step_columns(
    model: Callable[[Any], str], norm: Callable[[Any], str], baseline: str
) -> dict[str, Callable[[Any], str]]:
    """The columns of a table of training steps, with `step`, `peak_bytes` and their ratios."""
    return {
        "model": model,
        "norm": norm,
        "step ms": lambda r: milliseconds(r.step),
        f"time / {baseline}": lambda r: f"{r.step_ratio:.3f}",
        "peak MiB": lambda r: f"{r.peak_bytes / 2**20:.0f}",
        f"peak / {baseline}": lambda r: f"{r.peak_ratio:.3f}",
    }


def write_record(results: Sequence[Any], file: Path | None) -> None:
    """Write `results` (dataclasses), time and machine to `file`, if there is one."""
    if file is not None:
        record = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "environment": environment_record(),
            "results": [asdict(r) for r in results],
        }
        write_json(file, record)


def milliseconds(seconds: float) -> str:
    """For a table."""
    return f"{seconds * 1e3:.0f}"
