"""Config in, run directory out: the only place where data, task, callbacks and loggers meet."""

from __future__ import annotations

import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from vision.config import Config
from vision.datasets.check import IN_PACKAGES
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.sampler import split_batch
from vision.environment import allow_tf32, environment_record
from vision.errors import (
    ConfigError,
    nondeterministic,
)
from vision.files import write_json
from vision.models.blocks import describe_blocks
from vision.models.classifier import count_parameters
from vision.norms.statistics import describe_statistics
from vision.registry import TASKS
from vision.tasks.base import VisionTask
from vision.text import show
from vision.training.build import check_build
from vision.training.callbacks.metrics_csv import MetricsCSV
from vision.training.curves import plot_curves
from vision.training.early_ends import end_as_one_of_several, lost, refused_files
from vision.training.initialize import initialize
from vision.training.loggers import make_loggers, start_loggers, tensorboard
from vision.training.messages import say, set_up_logging
from vision.training.precision import check_precision
from vision.training.resume import ResumePoint, resume_point
from vision.training.run_directory import (
    check_run,
    held,
    open_run,
    read_summary,
    record_start,
    run_directory,
)
from vision.training.trainer import make_trainer, task_callbacks

# exit code after SIGTERM or, under SLURM, SIGUSR1: all is saved, start again (EX_TEMPFAIL of
# sysexits.h)
REQUEUE = 75
_MOST_OF_START = 0.1  # fraction of the start weights in an average, above which it is said


def train(config: Config, resume: bool = False) -> dict[str, Any]:
    """Run `config` to its end and return its summary (also in `summary.json`).

    Raises ValueError or FileNotFoundError, before anything long starts, for what cannot be run;
    ConfigError where another program trains the run.
    """
    set_up_logging()
    allow_tf32()
    changed = check_run(config, resume)
    check_build(config)
    check_precision(config.trainer)
    folder = run_directory(config)
    finished = read_summary(folder)
    if finished is not None:
        say(f"{folder} has finished already: nothing to do")
        return finished
    loggers = make_loggers(config)
    with ExitStack() as stack:
        existed = folder.is_dir()
        if existed:  # else nothing is made until all is checked
            stack.enter_context(held(folder))
        data, accumulate = open_data(config)
        pl.seed_everything(config.seed, verbose=False)
        point = resume_point(folder, data.steps_per_epoch)
        task = create_task(config, data, resumed=point is not None)
        start_loggers(loggers)
        callbacks = task_callbacks(config, folder)
        if not existed:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(folder))
        open_run(config)
        return _train(task, data, accumulate, callbacks, loggers, point, changed)


def _train(
    task: VisionTask,
    data: ImageDataModule,
    accumulate: int,
    callbacks: list[pl.Callback],
    loggers: list[Logger],
    point: ResumePoint | None,
    changed: dict[str, list[Any]],
) -> dict[str, Any]:
    """Train in the open run directory, from `point` where given."""
    config = task.config
    step = None if point is None else point.step
    folder = run_directory(config)
    timer = Timer()
    table = MetricsCSV(folder / "metrics.csv", step)
    writers = [table, tensorboard(folder, step), *loggers]
    trainer = make_trainer(task, folder, [timer, *callbacks], accumulate, writers, point)
    _announce(task, data, trainer, step)
    if trainer.is_global_zero:
        record_start(folder, environment_record(), step, changed)
        for key, (before, now) in changed.items():
            say(f"        {key} = {now}, was {before}")
    with refused_files(trainer):
        _run(trainer, task, data, None if point is None else point.file)
        return _finish(trainer, task, timer, table)


def _finish(
    trainer: pl.Trainer, task: VisionTask, timer: Timer, table: MetricsCSV
) -> dict[str, Any]:
    """Write the curves and the summary of a run that has ended; returns the summary."""
    config = task.config
    folder = run_directory(config)
    summary = {
        "task": config.task,
        "name": config.name,
        "norm": config.norm.name,
        "metrics": _final_metrics(table),
        "seed": config.seed,
        "parameters": count_parameters(task.model),
        "wall_seconds": round(timer.time_elapsed("train"), 1),
        "steps": trainer.global_step,
        "peak_memory_bytes": _peak_memory(trainer),
    }
    if trainer.is_global_zero:
        plot_curves(folder / "metrics.csv", folder / "curves.png", config.name, task.curves)
        write_json(folder / "summary.json", summary)
    return summary


def _run(
    trainer: pl.Trainer, task: VisionTask, data: ImageDataModule, checkpoint: Path | None
) -> None:
    """Train and test. Ends the process with `REQUEUE` after a signal.

    Raises FloatingPointError where training diverged, ConfigError for an operation that is not
    deterministic though the configuration asks for it.
    """
    try:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if task.config.data.test_split is not None:
            trainer.test(task, datamodule=data, verbose=False)
    except SIGTERMException:
        say(
            f"stopped by a signal at step {trainer.global_step}, all is saved; --resume continues "
            f"it: python tools/train.py {Path(trainer.default_root_dir) / 'config.yaml'} --resume"
        )
        # Lightning's launcher kills the first process if another ends with a code but 0
        sys.exit(REQUEUE if trainer.is_global_zero else 0)
    except FloatingPointError:
        if trainer.world_size > 1:
            end_as_one_of_several(trainer)
        raise
    except RuntimeError as error:
        if (operation := nondeterministic(error)) is not None:
            raise ConfigError(
                f"trainer.deterministic = true: {operation} has no deterministic implementation; "
                f"set it to false, or do without {operation}"
            ) from error
        if trainer.world_size > 1:
            show(lost(trainer, error), error=True)
        raise


def create_task(config: Config, data: ImageDataModule, resumed: bool = False) -> VisionTask:
    """The LightningModule of `config.task`, its weights from `model.init_from` or timm if asked.

    Not if it is `resumed`: then all its weights come from the run's own checkpoint.
    """
    create = TASKS.get(config.task)
    task: VisionTask = create(config, data.class_names, data.steps_per_epoch)
    data.draws = task.draws
    start = config.model.pretrained or config.model.init_from is not None
    if start and not resumed:
        say(*initialize(task, data).split("\n"))
        if task.ema is not None:
            task.ema.set(task.model)
    return task


def open_data(config: Config) -> tuple[ImageDataModule, int]:
    """The data, opened, and over how many batches gradients are accumulated."""
    options = config.trainer
    multiple = 2 if config.mix.mixup or config.mix.cutmix else 1  # they pair images
    _, accumulate = split_batch(
        options.batch_size_total,
        options.batch_size_device,
        options.devices * options.num_nodes,
        multiple,
    )
    data = ImageDataModule(
        config.data,
        seed=config.seed,
        batch_size_total=options.batch_size_total,
        batch_size_device=options.batch_size_device,
        max_steps=options.max_steps,
        batch_multiple=multiple,
    )
    data.setup("fit")
    processes = options.devices * options.num_nodes
    for key in ("val_split", "test_split"):
        split = getattr(config.data, key)
        if data.sizes.get(split, processes) < processes:
            raise ValueError(
                f"data.{key} = {split}: has {data.sizes[split]} images for {processes} processes; "
                "expected one or more for each; use fewer trainer.devices"
            )
    return data, accumulate


def _announce(
    task: VisionTask, data: ImageDataModule, trainer: pl.Trainer, step: int | None
) -> None:
    """Print the data, model, norm and run directory."""
    config = task.config
    say(f"data    {data.describe()}")
    if config.data.name in IN_PACKAGES:
        say("        a small real stand-in; configs/data and configs/recipes have others")
    say(f"model   {config.model.name}, {count_parameters(task.model):,} parameters")
    say(f"norm    {config.norm.name}: {task.conversion}")
    options, parts = config.trainer, trainer.accumulate_grad_batches
    if options.max_steps is not None:
        say(f"length  {task.describe_length()}")
    decay = config.ema.decay
    if decay is not None and not config.ema.warmup and decay**task.steps > _MOST_OF_START:
        say(
            f"average {decay**task.steps:.0%} of it is still the start weights at the end: "
            f"ema.decay = {decay} is for more than {task.steps:,} steps; lower it, or set "
            "ema.warmup=true"
        )
    statistics = describe_statistics(task.model, options.batch_size_total, parts)
    if statistics is not None:
        say(f"        {statistics}")
    blocks = describe_blocks(config.model.norm_placement, config.model.residual)
    if blocks is not None:
        say(f"blocks  {blocks}")
    say(f"run     {trainer.default_root_dir}, precision {trainer.precision}, seed {config.seed}")
    if step is not None:
        say(f"resume  from step {step}")


def _peak_memory(trainer: pl.Trainer) -> int:
    """Most bytes in use: of the first device on CUDA, of the whole process elsewhere."""
    if trainer.strategy.root_device.type == "cuda":
        return torch.cuda.max_memory_allocated(trainer.strategy.root_device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _final_metrics(table: MetricsCSV) -> dict[str, float]:
    """The last value of every metric that tells how the run ended."""
    last = {key: value for _, row in sorted(table.rows.items()) for key, value in row.items()}
    kept = ("val/", "test/", "data/")
    return {k: v for k, v in last.items() if k.startswith(kept) or k == "train/loss"}
