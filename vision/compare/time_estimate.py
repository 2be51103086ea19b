"""How long a run will take, measured on a few of its own training steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytorch_lightning as pl

from vision.compare.grid import Cell
from vision.models.classifier import count_parameters
from vision.norms.registry import load_norm_module
from vision.tasks.optimizer import create_optimizer
from vision.training.check import load_checked
from vision.training.train import create_task, open_data


@dataclass(frozen=True)
class TimeEstimate:
    """Trainable scalars, optimizer steps of the whole run, seconds per step measured here."""

    parameters: int
    steps: int
    seconds_per_step: float

    @property
    def seconds(self) -> float:
        """Training alone, without start-up, validation and checkpoints."""
        return self.steps * self.seconds_per_step


def estimate_time(cell: Cell, measured: int = 3) -> TimeEstimate:
    """Take `measured` optimizer steps of the cell's training, on the CPU, after one to warm up.

    Raises ConfigError, ValueError or FileNotFoundError where the cell cannot be run.
    """
    config = load_checked(cell.from_scratch()).config
    data, accumulate = open_data(config)
    if config.norm.module is not None:
        load_norm_module(config.norm.module)
    pl.seed_everything(config.seed, verbose=False)
    task = create_task(config, data)
    optimizer = create_optimizer(task.model, config.optim, config.trainer.batch_size_total)
    batches = iter(data.train_dataloader())
    start = 0.0
    for step in range(measured + 1):
        if step == 1:
            start = time.perf_counter()
        for _ in range(accumulate):
            batch = next(batches, None)
            if batch is None:
                batches = iter(data.train_dataloader())
                batch = next(batches)
            (task.compute_loss(batch) / accumulate).backward()
        optimizer.step()
        optimizer.zero_grad()
    seconds = (time.perf_counter() - start) / measured
    return TimeEstimate(count_parameters(task.model), task.steps, seconds)
