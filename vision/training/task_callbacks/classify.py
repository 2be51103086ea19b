"""Callbacks of the training of a classifier."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from vision.config import Config
from vision.registry import CALLBACKS
from vision.training.callbacks.test_predictions import TestPredictions


@CALLBACKS.register("classify")
def classify_callbacks(config: Config, folder: Path) -> list[pl.Callback]:
    """Those that `config` asks for; `folder` is the run directory."""
    if config.data.test_split is None:
        return []
    return [TestPredictions(folder / "test_predictions.npz")]
