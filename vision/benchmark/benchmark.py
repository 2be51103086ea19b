"""What `tools/benchmark.py` does, arguments parsed."""

from __future__ import annotations

from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from vision.benchmark.models import ModelSettings


_DATA = """Images per second of our loader and of timm's (timm.data.create_loader).

One round is an epoch of each loader, in an order that turns; a first one, in which workers start,
does not count. "ours / it" is the median over rounds of our images/s divided by its own: 1 and more
means that ours is as fast. timm's workers send normalized floats ("no prefetcher", as ours do) or
bytes that are normalized where the model is ("prefetcher", its default; here that is the CPU).

Without --root images are cut out of scikit-learn's two photographs: JPEG, 256 to 500 pixels."""


def add_data_parser(tools: Any) -> None:
    """The arguments of `tools/benchmark.py data`."""
    parser = tools.add_parser(
        "data", description=_DATA, formatter_class=RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run_data, plot=None)
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="images of your own: DIR/train/CLASS/IMAGE"
    )
    parser.add_argument("--images", type=int, default=1024, help="how many to make without --root")
    parser.add_argument("--workers", type=int, default=2, help="loader processes; 0: none")
    parser.add_argument("--batch", type=int, default=64, help="images")
    parser.add_argument("--img-size", type=int, default=224, help="pixels that the model gets")
    parser.add_argument(
        "--auto-augment",
        default="rand-m9-mstd0.5-inc1",
        metavar="NAME",
        help="by timm's names; none: crop, flip and colours alone (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")


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
        results = mae.benchmark_mae(settings, arguments.rounds, progress)
    _show(report.mae_table(results))
    _write(results, arguments)


def run_diagnostics(arguments: Namespace) -> None:
    """Measure what watching the norms costs, show and write the results."""
    from vision.benchmark import diagnostics, report

    settings = _settings(arguments)
    with _progress(len(arguments.norms) * (2 + arguments.rounds)) as progress:
        results = [
            diagnostics.benchmark_diagnostics(settings, norm, arguments.rounds, progress)
            for norm in arguments.norms
        ]
    _show(report.diagnostics_table(results))
    _write(results, arguments)


def run_data(arguments: Namespace) -> None:
    """Measure our loader against timm's, show and write the results."""
    from vision.benchmark import data, report

    with TemporaryDirectory() as folder, _progress(3 + arguments.rounds) as progress:
        root = arguments.root
        if root is None:
            root = Path(folder)
            data.write_pictures(root, arguments.images)
        settings = data.DataSettings(
            root,
            arguments.batch,
            arguments.workers,
            arguments.img_size,
            None if arguments.auto_augment == "none" else arguments.auto_augment,
        )
        results = data.benchmark_data(settings, arguments.rounds, progress)
    _show(report.data_table(results))
    _write(results, arguments)


def _settings(arguments: Namespace) -> ModelSettings:
    from vision.benchmark.models import ModelSettings

    device = str(_device(arguments.device))
    return ModelSettings(
        arguments.model, arguments.batch, arguments.img_size, arguments.dtype, device
    )


def _device(name: str) -> torch.device:
    from vision.environment import choose_device  # imports torch

    return choose_device(None if name == "auto" else name)


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
