"""What a classifier says of each test image, so that runs can be compared image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from vision.datasets.dataset import Batch
from vision.files import written


class TestPredictions(pl.Callback):
    """Writes `target` and `predicted`, int32 [N] in the order of the test split, to an .npz file.

    Images that could not be read are left out.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._parts: list[Tensor] = []  # [3, B]: position, class, predicted class

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        *arguments: Any,
    ) -> None:
        """Keep what the task predicted for this batch."""
        if len(batch.images) > 0:
            predicted: Tensor = pl_module.predicted  # type: ignore[assignment]
            self._parts.append(torch.stack([batch.indices, batch.targets, predicted]))

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the parts of all ranks."""
        empty = torch.empty(3, 0, dtype=torch.int64, device=pl_module.device)
        mine = torch.cat([empty, *self._parts], dim=1).T.contiguous()  # gathered along the first
        parts = gather_all_tensors(mine) if trainer.world_size > 1 else [mine]
        self._parts = []
        if trainer.is_global_zero:
            rows = torch.cat(parts).cpu().numpy()
            rows = rows[np.argsort(rows[:, 0])].astype(np.int32)
            with written(self.file) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, target=rows[:, 1], predicted=rows[:, 2])


def read_predictions(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Classes [N] and predicted classes [N] of the test images."""
    with np.load(file, allow_pickle=False) as content:
        return content["target"], content["predicted"]
