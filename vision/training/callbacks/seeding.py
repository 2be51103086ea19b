"""Random numbers that follow from seed, step and rank alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from vision.seeding import derive_seed


class StepSeeding(pl.Callback):
    """Seeds every global generator before each training batch.

    Dropout, drop path and mixup draw from global state; seeding it by (seed, epoch, batch, rank)
    makes a resumed run draw what the uninterrupted one drew.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed python, numpy and torch (all devices)."""
        value = derive_seed(
            self.seed, "step", trainer.current_epoch, batch_idx, trainer.global_rank
        )
        random.seed(value)
        np.random.seed(value % 2**32)
        torch.manual_seed(value)
