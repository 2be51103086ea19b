"""`last.ckpt`: all that an exact resume needs, saved often and never lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from vision.checkpoints.archive import previous_of, save_whole
from vision.checkpoints.read import read_run
from vision.checkpoints.sharded import is_sharded, read_sharded
from vision.tasks.finite import nonfinite_tensor
from vision.text import show
from vision.training.callbacks.lightning_private import (
    count_batches_as,
    find_best_in,
    log_epoch,
    log_step,
)
from vision.training.callbacks.progress import ends_step
from vision.training.resume import ResumePoint


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, reads it back, renames it; keeps `previous.ckpt`.

    Lightning writes to the system's temporary folder and moves the file from there: between file
    systems that is a copy, which a kill or a full disk can cut short.

    `point` has been read already, and is not read again.
    """

    def __init__(self, point: ResumePoint | None = None) -> None:
        super().__init__()
        self._point = point

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Raises UnwritableError, leaving the file that was there."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_whole(checkpoint, path, previous_of(path))

    def load_checkpoint(
        self, path: Any, *arguments: Any, like: Any = None, **options: Any
    ) -> dict[str, Any]:
        """Whatever strategy wrote it; runs no code in it. Raises ValueError if damaged.

        `like` is as in `read_sharded`.
        """
        path = Path(path)
        point, content = self._point, None
        if point is not None and point.file == path:
            content = point.take()
        if content is None:
            content = read_run(path)
        return read_sharded(path, like, content) if is_sharded(path) else content


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt` after each epoch and, if asked, every n optimizer steps or minutes.

    The checkpoint before it stays as `previous.ckpt`. When any rank receives SIGTERM, Ctrl-C, or
    SIGUSR1 under SLURM, all finish their step, save, and end with a SIGTERMException; a signal
    during validation waits for its end.

    Lightning's ModelCheckpoint saves by steps or by epochs, not both, and its checkpoint of an
    epoch's last step resumes after that epoch's validation; this one leaves that step to the end of
    the epoch. Lightning's signal handlers communicate at once, wherever the other ranks are.
    """

    def __init__(
        self,
        path: Path,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        on_first_save: Callable[[], None] | None = None,
    ) -> None:
        """`on_first_save` is called in the first process, once a checkpoint is in its place."""
        self.path = path
        self._on_first_save = on_first_save
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._saved_at = time.monotonic()
        self._signalled = False
        self._hosts: torch.distributed.ProcessGroup | None = None  # of all processes, on their CPUs

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace Lightning's signal handlers; Lightning restores the previous ones at the end."""
        if trainer.world_size > 1 and self._hosts is None:
            self._hosts = torch.distributed.new_group(backend="gloo")  # type: ignore[assignment]
        if threading.current_thread() is not threading.main_thread():
            return  # only the main thread may set handlers
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_interrupt)
        if "SLURM_JOB_ID" in os.environ:  # sbatch --signal=USR1@SECONDS
            signal.signal(signal.SIGUSR1, self._on_signal)

    on_test_start = on_train_start

    def on_test_batch_end(self, *arguments: Any) -> None:
        """Stop at once: there is nothing to save, and resuming repeats the test."""
        if self._signalled:
            raise SIGTERMException

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save if due after a complete step; the epoch's last step is saved at its end."""
        if trainer.is_last_batch or not ends_step(trainer, batch_idx):
            return
        stop, late = self._agree()
        every = self.every_n_steps
        if stop or late or (every is not None and trainer.global_step % every == 0):
            log_step(trainer)  # a process that ends before Lightning does would lose the step
            self._save(trainer, pl_module)
        if stop:
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch's validation."""
        stop, _ = self._agree()
        log_epoch(trainer)  # what the checkpoint counts as done must be in the table before it
        self._save(trainer, pl_module)
        if stop:
            raise SIGTERMException

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Resume at the right batch if this run accumulates another number of them to a step, and
        with the best score so far if its directory was moved."""
        count_batches_as(checkpoint, trainer.accumulate_grad_batches)
        find_best_in(checkpoint, self.path.parent)

    def _on_signal(self, *arguments: Any) -> None:
        self._signalled = True

    def _on_interrupt(self, *arguments: Any) -> None:
        """Ctrl-C: as SIGTERM, once; the second one is Python's."""
        show("", "stopping at the end of this step (Ctrl-C again: at once)")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._signalled = True

    def _agree(self) -> tuple[bool, bool]:
        """Whether any rank was told to stop, and whether any finds a save due by the clock.

        All ranks get the same answers, since all must save together. Asked after every step, so not
        by the accelerators, whose answer would have to wait for all that they have to compute.
        """
        age = (time.monotonic() - self._saved_at) / 60
        late = self.every_n_minutes is not None and age >= self.every_n_minutes
        if self._hosts is None:
            return self._signalled, late
        flags = torch.tensor([self._signalled, late], dtype=torch.int32)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=self._hosts)
        stop, late = flags.bool().tolist()
        return stop, late

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # losses and gradients are checked only every few steps; never replace a good checkpoint
        broken = nonfinite_tensor(pl_module.named_parameters())
        if broken is not None:
            raise FloatingPointError(
                f"{broken} is not finite after step {trainer.global_step}; not saved: {self.path} "
                "stays as it was. Lower optim.lr, set optim.clip_grad, or use more warm-up"
            )
        for logger in trainer.loggers:
            logger.save()  # a kill after this checkpoint must not lose the metrics before it
        trainer.save_checkpoint(self.path, weights_only=False)
        if trainer.is_global_zero and self._on_first_save is not None:
            self._on_first_save()
        self._on_first_save = None
        self._saved_at = time.monotonic()
