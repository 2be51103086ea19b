"""Which callbacks a task gets besides those of every training."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from vision.config import Config
from vision.training.callbacks.generation import GenerationMetrics
from vision.training.callbacks.knn import KnnAccuracy
from vision.training.callbacks.reconstruction import Reconstructions
from vision.training.callbacks.samples import SampleGrid


def task_callbacks(config: Config, num_classes: int, folder: Path) -> list[pl.Callback]:
    """What `config.task` wants done beside its training; `folder` is the run's directory."""
    found: list[pl.Callback] = []
    mae, dit = config.mae, config.dit
    if config.task == "mae" and mae.knn_every_n_epochs is not None:
        found.append(KnnAccuracy(mae.knn_every_n_epochs, mae.knn_neighbors, num_classes))
    if config.task == "mae" and mae.pictures_every_n_epochs is not None:
        found.append(
            Reconstructions(
                folder / "reconstructions",
                mae.pictures_every_n_epochs,
                mae.pictures,
                mae.mask_ratio,
                config.data,
                config.seed,
            )
        )
    if config.task == "dit" and dit.sample_every_n_steps is not None:
        found.append(SampleGrid(folder / "samples", dit.sample_every_n_steps))
    if config.task == "dit" and config.evaluation.extractor is not None:
        found.append(GenerationMetrics(config, folder / "evaluation"))
    return found
