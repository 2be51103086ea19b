"""Callbacks of masked autoencoder pre-training."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from vision.config import Config
from vision.registry import CALLBACKS
from vision.training.callbacks.knn import KnnAccuracy
from vision.training.callbacks.reconstruction import Reconstructions


@CALLBACKS.register("mae")
def mae_callbacks(config: Config, folder: Path) -> list[pl.Callback]:
    """Those that `config` asks for; `folder` is the run directory."""
    found: list[pl.Callback] = []
    mae = config.mae
    if mae.knn_every_n_epochs is not None:
        found.append(KnnAccuracy(mae.knn_every_n_epochs, mae.knn_neighbors))
    if mae.pictures_every_n_epochs is not None:
        pictures = folder / "reconstructions"
        found.append(Reconstructions(pictures, config, mae.pictures_every_n_epochs))
    return found
