"""What watching the norms costs while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch

from vision.benchmark.models import ModelSettings, TrainingStep
from vision.benchmark.timing import median_times

EVERY = 20  # steps; the interval of configs/compare/digits.yaml


@dataclass(frozen=True)
class DiagnosticsResult:
    """Seconds per step, medians of one run: plain, and one at which the diagnostics are due.

    `step_ratio` is what training takes with one such step in `every_n_steps`, against none.
    """

    norm: str
    model: str
    batch: int
    every_n_steps: int
    step: float
    watched: float
    step_ratio: float


def benchmark_diagnostics(
    settings: ModelSettings,
    norm: str,
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> DiagnosticsResult:
    """Times training steps with and without `NormDiagnostics` in turn; between the due steps it
    does nothing but look at the step's number."""
    from vision.training.callbacks.diagnostics import NormDiagnostics

    progress(f"{norm}: building")
    step = TrainingStep(settings, norm)
    with TemporaryDirectory() as folder:
        callback = NormDiagnostics(Path(folder) / "diagnostics.csv", EVERY)
        task: Any = torch.nn.ModuleDict({"model": step.model})

        trainer: Any = SimpleNamespace(global_step=0)

        def watched() -> None:
            callback.on_train_batch_start(trainer, task, None, 0)
            step(lambda: callback.on_before_optimizer_step(trainer, task, step.optimizer))
            callback.on_train_batch_end(trainer, task, None, None, 0)

        times = median_times(
            {"plain": step, "watched": watched},
            torch.device(settings.device),
            rounds,
            after_round=lambda: progress(f"{norm}: step times"),
        )
    plain, due = times["plain"], times["watched"]
    return DiagnosticsResult(
        norm,
        settings.model,
        settings.batch,
        EVERY,
        plain,
        due,
        1 + (due - plain) / (EVERY * plain),
    )
