"""What `tools/benchmark.py` does, arguments parsed."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vision.benchmark.models import ModelSettings


def run_norms(arguments: Namespace) -> None:
    """Measure the norms, show and write the results. Raises ValueError for what cannot be."""
    import torch

    from vision.benchmark import norms, report

    device = _device(arguments.device)
    found = norms.contenders(device, arguments.torch_compile, tuple(arguments.peer))
    dtype = getattr(torch, arguments.dtype)
    with _progress(2 * len(norms.WIDTHS)) as progress:
        results = list(
            norms.benchmark_norms(found, arguments.batch, dtype, device, arguments.rounds, progress)
        )
    _show(report.norms_table(results))
    _write(results, arguments)


def run_models(arguments: Namespace) -> None:
    """Measure whole models, show and write the results."""
    from vision.benchmark import models, report

    settings = _settings(arguments)
    with _progress(len(arguments.norms) + 1 + arguments.rounds) as progress:
        results = models.benchmark_models(settings, arguments.norms, arguments.rounds, progress)
    _show(report.models_table(results))
    _write(results, arguments)


def run_mae(arguments: Namespace) -> None:
    """Measure MAE pre-training against supervised training, show and write the result."""
    from vision.benchmark import mae, report

    settings = _settings(arguments)
    with _progress(1 + arguments.rounds) as progress:
        result = mae.benchmark_mae(settings, arguments.rounds, progress)
    _show(report.mae_table(result))
    _write([result], arguments)


def _settings(arguments: Namespace) -> ModelSettings:
    from vision.benchmark.models import ModelSettings

    device = str(_device(arguments.device))
    return ModelSettings(
        arguments.model, arguments.batch, arguments.img_size, arguments.dtype, device
    )


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _show(table: Any) -> None:
    from rich.console import Console

    console = Console()
    # a file or a pipe has no width: lines must not be cut
    Console(width=max(console.width, 120) if not console.is_terminal else None).print(table)


def _write(results: list[Any], arguments: Namespace) -> None:
    from vision.benchmark import report

    if arguments.json:
        report.write_json(results, arguments.json)
    if arguments.plot:
        report.plot(results, arguments.plot)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error that moves at each call of what is yielded."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda text: bar.update(task, description=text, advance=1)
