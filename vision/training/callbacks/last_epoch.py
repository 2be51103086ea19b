"""The last epoch of a training whose steps do not fill it."""

from __future__ import annotations

import pytorch_lightning as pl

from vision.training.callbacks.lightning_private import count_on


class ShortLastEpoch(pl.Callback):
    """Ends the last epoch where `trainer.max_steps` says, as every epoch ends.

    `GlobalBatchSampler` yields only the steps that are left. Lightning's own `max_steps` would stop
    in the middle of an epoch: without its mean loss, validation and last logged step.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell Lightning how many batches this epoch has."""
        batches = len(trainer.train_dataloader)  # type: ignore[arg-type]
        if batches != trainer.num_training_batches:
            count_on(trainer, batches)
