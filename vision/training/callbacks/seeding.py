"""Random numbers that depend on seed, step and rank only."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from vision.seeding import seed_globals


class StepSeeding(pl.Callback):
    """Seeds every global generator before each training batch, on accelerators too.

    Dropout, drop path and mixup draw from global generators; seeding these by (seed, epoch, batch,
    rank) makes a resumed run draw what the uninterrupted run drew.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed for this batch."""
        seed_globals(self.seed, "step", trainer.current_epoch, batch_idx, trainer.global_rank)
