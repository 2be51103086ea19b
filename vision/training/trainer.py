"""Lightning's Trainer as a configuration asks for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger
from rich.console import Console

from vision.config import Config
from vision.registry import CALLBACKS
from vision.tasks.base import VisionTask
from vision.training.callbacks.checkpoint import LastCheckpoint, WholeCheckpointIO
from vision.training.callbacks.diagnostics import NormDiagnostics
from vision.training.callbacks.last_epoch import LastEpoch
from vision.training.callbacks.progress import (
    DataWait,
    EpochLine,
    LoggedProgressBar,
    Throughput,
)
from vision.training.callbacks.seeding import StepSeeding
from vision.training.precision import precision_options, resolve_precision
from vision.training.resume import ResumePoint
from vision.training.run_directory import record_save
from vision.training.strategies import launched_by, make_strategy


def make_trainer(
    task: VisionTask,
    folder: Path,
    extra: list[pl.Callback],
    accumulate: int,
    loggers: list[Logger],
    point: ResumePoint | None,
) -> pl.Trainer:
    """Lightning's Trainer, writing into `folder`, with `extra` and the callbacks that the
    configuration asks for. A run that continues does so from `point`."""
    config = task.config
    options = config.trainer
    precision = precision_options(resolve_precision(options.precision))
    plugins = [WholeCheckpointIO(point), *launched_by(), *precision.pop("plugins", [])]
    return pl.Trainer(
        default_root_dir=folder,
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=make_strategy(options),
        deterministic=options.deterministic or None,
        max_epochs=task.epochs,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=config.optim.clip_grad,
        check_val_every_n_epoch=options.val_every_n_epochs,
        log_every_n_steps=options.log_every_n_steps,
        logger=loggers,
        callbacks=_callbacks(task, folder, extra, None if point is None else point.step),
        inference_mode=options.strategy != "fsdp",  # its buffers are trained with afterwards
        enable_progress_bar=shows_bar(config),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=plugins,
        **precision,
    )


def shows_bar(config: Config) -> bool:
    """Whether there is a progress bar: not in a log file or a pipe, where lines of epochs do."""
    return config.trainer.progress_bar and Console().is_terminal


def _callbacks(
    task: VisionTask, folder: Path, extra: list[pl.Callback], resume_step: int | None
) -> list[pl.Callback]:
    """All callbacks in the order in which they run; Lightning moves checkpoints to the end."""
    config = task.config
    options = config.trainer
    monitor, mode = task.monitor
    best = ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode=mode,
        save_weights_only=True,
        enable_version_counter=False,
    )
    callbacks: list[pl.Callback] = [
        StepSeeding(config.seed),
        Throughput(),
        DataWait(),
        LastEpoch(),
        EpochLine((*task.shown, "train/images_per_sec", "data/skipped")),
        *extra,
        *_diagnostics(config, folder, resume_step),
        best,
        LastCheckpoint(
            folder / "last.ckpt",
            options.checkpoint_every_n_steps,
            options.checkpoint_every_n_minutes,
            partial(record_save, folder),
        ),
    ]
    if shows_bar(config):
        callbacks.append(LoggedProgressBar())
    return callbacks


def task_callbacks(config: Config, folder: Path) -> list[pl.Callback]:
    """What `config.task` does beside its training; a task may also define `configure_callbacks`.

    Raises ValueError for what they cannot work with, before there is a run.
    """
    if config.task not in CALLBACKS.names():
        return []
    return CALLBACKS.get(config.task)(config, folder)


def _diagnostics(config: Config, folder: Path, resume_step: int | None) -> list[pl.Callback]:
    every = config.trainer.diagnostics_every_n_steps
    if every is None:
        return []
    return [NormDiagnostics(folder / "diagnostics.csv", every, resume_step)]
