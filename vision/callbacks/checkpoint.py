"""`last.ckpt`: everything that an exact resume needs, written often, never lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins import TorchCheckpointIO
from pytorch_lightning.utilities.exceptions import SIGTERMException

from vision.models.archive import save_whole
from vision.models.finite import nonfinite_tensor


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place, reads it back, renames it; keeps `previous.ckpt`.

    Lightning writes to the system's folder for temporary files and moves from there: across file
    systems that is a copy, which a kill or a full disk can cut short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Raises UnwritableError, leaving what was there, if it cannot be written."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_whole(checkpoint, Path(path), previous=Path(path).with_name("previous.ckpt"))


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after each epoch and, if asked, every n optimizer steps or minutes.

    The one before it stays as `previous.ckpt`. A SIGTERM saves at the end of the step.

    Lightning's ModelCheckpoint takes either steps or epochs, and a checkpoint of the last step of
    an epoch would resume past that epoch's validation; this one leaves that step to the end of
    the epoch.
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
        self._between_steps = False  # in an epoch, with no gradients half accumulated

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where it is due and the step complete."""
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        self._between_steps = stepped and not trainer.is_last_batch
        if self._between_steps and self._due(trainer):
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch's validation."""
        self._save(trainer, pl_module)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save when the machine is taken away (SIGTERM), between two steps of training."""
        if isinstance(exception, SIGTERMException) and self._between_steps:
            self._save(trainer, pl_module)

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
        self._between_steps = False
