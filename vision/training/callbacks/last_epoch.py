"""The last epoch of a training."""

from __future__ import annotations

import pytorch_lightning as pl

from vision.training.callbacks.lightning_private import count_on


class LastEpoch(pl.Callback):
    """Validates after the last epoch, and ends it where `trainer.max_steps` says, as every epoch
    ends.

    Without that validation the final metrics of a run would be those of an earlier epoch, where
    `trainer.val_every_n_epochs` does not divide the epochs.

    `GlobalBatchSampler` yields only the steps that are left. Lightning's own `max_steps` would stop
    in the middle of an epoch: without its mean loss, validation and last logged step.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run may go on within its last epoch, which then has no start."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell Lightning how many batches this epoch has, and whether it is the last."""
        self.on_train_start(trainer, pl_module)
        batches = len(trainer.train_dataloader)  # type: ignore[arg-type]
        if batches != trainer.num_training_batches:
            count_on(trainer, batches)
