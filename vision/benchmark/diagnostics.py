"""What watching the norms costs while a model trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    """Seconds per step, medians of one run, each the mean over `every_n_steps` steps."""

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
    """Times `EVERY` training steps with and without `NormDiagnostics`, one of them due."""
    from vision.callbacks.diagnostics import NormDiagnostics

    progress(f"{norm}: building")
    step = TrainingStep(settings, norm)
    with TemporaryDirectory() as folder:
        callback = NormDiagnostics(Path(folder) / "diagnostics.csv", EVERY)
        task: Any = torch.nn.ModuleDict({"model": step.model})

        def plain() -> None:
            for _ in range(EVERY):
                step()

        def watched() -> None:
            for number in range(EVERY):
                trainer: Any = SimpleNamespace(global_step=number)
                callback.on_train_batch_start(trainer, task, None, number)
                step(partial(callback.on_before_optimizer_step, trainer, task, step.optimizer))
                callback.on_train_batch_end(trainer, task, None, None, number)

        times = median_times(
            {"plain": plain, "watched": watched},
            torch.device(settings.device),
            rounds,
            after_round=lambda: progress(f"{norm}: step times"),
        )
    plain_step, watched_step = times["plain"] / EVERY, times["watched"] / EVERY
    return DiagnosticsResult(
        norm,
        settings.model,
        settings.batch,
        EVERY,
        plain_step,
        watched_step,
        watched_step / plain_step,
    )
