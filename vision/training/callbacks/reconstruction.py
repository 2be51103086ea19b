"""Pictures of a masked autoencoder's reconstructions while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytorch_lightning as pl
import torch

from vision.config import Config
from vision.datasets.datamodule import ImageDataModule
from vision.evaluation.reconstructions import reconstruction_grid
from vision.models.mae import MAE
from vision.seeding import generator_for
from vision.training.loggers import log_picture


class Reconstructions(pl.Callback):
    """Writes `EPOCH.png` into `folder`, and to TensorBoard, every n epochs and after the last.

    One row per image, spread evenly over the validation split: original, masked, reconstruction.
    The masks are the same in every picture.
    """

    def __init__(self, folder: Path, config: Config, every_n_epochs: int) -> None:
        self.folder = folder
        self.config = config
        self.every_n_epochs = every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw if the epoch is due, on rank 0."""
        epoch = trainer.current_epoch + 1
        due = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        if not due or not trainer.is_global_zero:
            return
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        count = self.config.mae.pictures
        # spread, as the first images of a split in folders are all of one class
        loader = data.sample_loader(self.config.data.val_split, count, count)
        images = torch.cat([batch.images for batch in loader])
        if len(images) == 0:
            return

        def draw() -> torch.Tensor:
            generator = generator_for(self.config.seed, "reconstruction")
            model = cast(MAE, pl_module.get_submodule("model"))
            precision, ratio = trainer.precision_plugin, self.config.mae.mask_ratio
            with precision.forward_context():
                inputs = precision.convert_input(images.to(pl_module.device))
                return reconstruction_grid(model, inputs, ratio, self.config.data, generator)

        log_picture(trainer, "reconstruction", draw, self.folder / f"{epoch:04d}.png")
