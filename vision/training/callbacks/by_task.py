"""Which callbacks a task gets besides those of every task."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from vision.config import Config
from vision.training.callbacks.generation import GenerationMetrics
from vision.training.callbacks.knn import KnnAccuracy
from vision.training.callbacks.reconstruction import Reconstructions
from vision.training.callbacks.samples import SampleGrid


def task_callbacks(config: Config, folder: Path) -> list[pl.Callback]:
    """The callbacks that `config` asks for; `folder` is the run directory.

    A task of a user's own may define Lightning's `configure_callbacks` instead.
    """
    mae, dit = config.mae, config.dit
    found: list[pl.Callback] = []
    if config.task == "mae":
        if mae.knn_every_n_epochs is not None:
            found.append(KnnAccuracy(mae.knn_every_n_epochs, mae.knn_neighbors))
        if mae.pictures_every_n_epochs is not None:
            pictures = folder / "reconstructions"
            found.append(Reconstructions(pictures, config, mae.pictures_every_n_epochs))
    if config.task == "dit":
        if dit.sample_every_n_steps is not None:
            found.append(SampleGrid(folder / "samples", dit.sample_every_n_steps))
        if config.evaluation.extractor is not None:
            found.append(GenerationMetrics(config, folder / "evaluation"))
    return found
