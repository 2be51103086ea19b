"""`last.ckpt`: everything that an exact resume needs, written often, never lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from vision.checkpoints.archive import previous_of, save_whole
from vision.checkpoints.read import read_checkpoint
from vision.tasks.finite import nonfinite_tensor


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, reads it back, renames it; keeps `previous.ckpt`.

    Lightning writes to the system's folder for temporary files and moves from there: across file
    systems that is a copy, which a kill or a full disk can cut short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Raises UnwritableError, leaving what was there, if it cannot be written."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_whole(checkpoint, path, previous_of(path))

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Whatever wrote it, without running code. Raises ValueError if it is not whole."""
        return read_checkpoint(Path(path))


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after each epoch and, if asked, every n optimizer steps or minutes.

    The one before it stays as `previous.ckpt`. A SIGTERM, or under SLURM a SIGUSR1, to any process
    saves when all have finished their step, and ends training with a SIGTERMException; during
    validation it waits for its end, so that nothing is lost.

    Lightning's ModelCheckpoint takes either steps or epochs, and a checkpoint of the last step of
    an epoch would resume past that epoch's validation; this one leaves that step to the end of
    the epoch. Lightning's handlers of signals communicate at once, wherever other processes are.
    """

    def __init__(
        self,
        path: Path,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
    ) -> None:
        self.path = path
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._saved_at = time.monotonic()
        self._signalled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take signals over from Lightning, which gives them back to whom they were."""
        self._watch()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same for the test, which has nothing to save."""
        self._watch()

    def on_test_batch_end(self, *arguments: Any) -> None:
        """Stop at once: resuming repeats the test."""
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
        """Save where it is due and the step complete; the last step is left to the epoch's end."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not stepped or trainer.is_last_batch:
            return
        stop = self._to_stop(trainer)
        if stop or self._due(trainer):
            # Lightning logs the step after this hook; a process that ends before never would
            trainer._logger_connector.update_train_step_metrics()
            self._save(trainer, pl_module)
        if stop:
            raise SIGTERMException

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch's validation."""
        stop = self._to_stop(trainer)
        self._save(trainer, pl_module)
        if stop:
            raise SIGTERMException

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count batches as this run does, where it accumulates another number of them to a step."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        before = progress["total"]["ready"]
        now = checkpoint["global_step"] * trainer.accumulate_grad_batches
        if before == now:
            return
        for counts in (progress["total"], progress["current"]):
            # one batch is not completed yet where it was saved between two steps
            left = counts["ready"] - counts["completed"]
            ready = counts["ready"] * now // before
            counts.update(ready=ready, started=ready, processed=ready, completed=ready - left)

    def _watch(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # which alone may set handlers
        signal.signal(signal.SIGTERM, self._on_signal)
        if "SLURM_JOB_ID" in os.environ:  # sbatch --signal=USR1@SECONDS
            signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, *arguments: Any) -> None:
        self._signalled = True

    def _to_stop(self, trainer: pl.Trainer) -> bool:
        """Whether any process was told to stop: all must save together."""
        return trainer.strategy.reduce_boolean_decision(self._signalled, all=False)

    def _due(self, trainer: pl.Trainer) -> bool:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            return True
        if self.every_n_minutes is None:
            return False
        late = time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        return trainer.strategy.broadcast(late)  # clocks differ, and all must save together

    def _save(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # losses and gradients are looked at every few steps only: a last good checkpoint must stay
        broken = nonfinite_tensor(pl_module.named_parameters())
        if broken is not None:
            raise FloatingPointError(
                f"{broken} is not finite after step {trainer.global_step}; not saved: {self.path} "
                "stays as it was. Lower optim.lr, set optim.clip_grad, or use more warm-up"
            )
        for logger in trainer.loggers:
            logger.save()  # the figures up to here must not be lost with a process killed next
        trainer.save_checkpoint(self.path, weights_only=False)
        self._saved_at = time.monotonic()
