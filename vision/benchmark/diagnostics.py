"""A training step with the norms watched by `NormDiagnostics` against one without."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch

from vision.benchmark.command_line import milliseconds, report
from vision.benchmark.supervised import ModelSettings, add_model_arguments, supervised_step
from vision.benchmark.timing import Work, median_times
from vision.training.callbacks.diagnostics import NormDiagnostics

EVERY = 20  # steps; the interval of configs/compare/digits.yaml


@dataclass(frozen=True)
class DiagnosticsResult:
    """Seconds per step, medians of one run: without diagnostics, and one at which they are due.

    `step_ratio`: time of training with one such step in `every_n_steps`, divided by without.
    """

    norm: str
    model: str
    batch: int
    every_n_steps: int
    step: float
    watched: float
    step_ratio: float


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    add_model_arguments(parser, "tiny", batch=8, rounds=20)
    parser.add_argument("--norms", nargs="+", default=["layernorm", "seednorm"])


def run(arguments: Namespace) -> None:
    """Measure, print and write the results."""
    settings = ModelSettings.given(arguments)
    results = [benchmark_diagnostics(settings, n, arguments.rounds) for n in arguments.norms]
    columns = {
        f"{settings.model}, batch {settings.batch}": lambda r: r.norm,
        "step ms": lambda r: milliseconds(r.step),
        "watched step ms": lambda r: milliseconds(r.watched),
        f"ratio, one in {EVERY} watched": lambda r: f"{r.step_ratio:.3f}",
    }
    report(results, columns, arguments.json)


def benchmark_diagnostics(settings: ModelSettings, norm: str, rounds: int) -> DiagnosticsResult:
    """Time training steps with and without `NormDiagnostics` in turn.

    In the steps between, it only looks at the step's number.
    """
    step = supervised_step(settings, norm)
    with TemporaryDirectory() as folder:
        callback = NormDiagnostics(Path(folder) / "diagnostics.csv", EVERY)
        task: Any = torch.nn.ModuleDict({"model": step.model})
        trainer: Any = SimpleNamespace(global_step=0)

        def watched() -> None:
            callback.on_train_batch_start(trainer, task, None, 0)
            step(lambda: callback.on_before_optimizer_step(trainer, task, step.optimizer))
            callback.on_train_batch_end(trainer, task, None, None, 0)

        work: dict[str, Work] = {"plain": step, "watched": watched}
        times = median_times(work, torch.device(settings.device), rounds)
    plain, due = times["plain"], times["watched"]
    ratio = 1 + (due - plain) / (EVERY * plain)
    return DiagnosticsResult(norm, settings.model, settings.batch, EVERY, plain, due, ratio)
