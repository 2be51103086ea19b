"""Callbacks of the training of a diffusion transformer."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from vision.config import Config
from vision.registry import CALLBACKS
from vision.training.callbacks.generation import GenerationMetrics
from vision.training.callbacks.samples import SampleGrid


@CALLBACKS.register("dit")
def dit_callbacks(config: Config, folder: Path) -> list[pl.Callback]:
    """Those that `config` asks for; `folder` is the run directory."""
    found: list[pl.Callback] = []
    if config.dit.sample_every_n_steps is not None:
        found.append(SampleGrid(folder / "samples", config.dit.sample_every_n_steps))
    if config.evaluation.extractor is not None:
        found.append(GenerationMetrics(config, folder / "evaluation"))
    return found
