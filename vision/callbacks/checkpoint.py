"""`last.ckpt`: everything that an exact resume needs, written often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from vision.models.finite import nonfinite_tensor


class LastCheckpoint(Checkpoint):
    """Writes `last.ckpt` after each epoch and, if asked, every n optimizer steps.

    Lightning writes to a temporary name and renames. Its ModelCheckpoint takes either steps or
    epochs, and a checkpoint of the last step of an epoch would resume past that epoch's
    validation; this one leaves that step to the end of the epoch.
    """

    def __init__(self, path: Path, every_n_steps: int | None = None) -> None:
        self.path = path
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where the step is due and complete (no gradients half accumulated)."""
        if self.every_n_steps is None or trainer.is_last_batch:
            return
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if stepped and trainer.global_step % self.every_n_steps == 0:
            self._save(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after the epoch's validation."""
        self._save(trainer, pl_module)

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
