"""A grid of generated images every N training steps, always from the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from torch import Tensor

from vision.diffusion.generate import Sampling, generate
from vision.pictures import image_grid
from vision.seeding import preserved
from vision.training.loggers import log_picture

if TYPE_CHECKING:
    from vision.tasks.dit import DiTTask

MAX_CLASSES = 10  # a column per class
_ROWS = 4


class SampleGrid(pl.Callback):
    """Writes `FOLDER/step_N.png` every N steps, and the same picture to TensorBoard.

    A column per class (the first ten), a row per noise; from the averaged weights, if there are
    any. Training is not affected: random states are restored.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.folder = folder
        self.every_n_steps = every_n_steps
        self._last = -1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Sample if this step is due; with accumulation, after the last batch of the step."""
        step = trainer.global_step
        if step % self.every_n_steps or step in (0, self._last):
            return
        self._last = step
        with pl_module.whole_weights():  # type: ignore[operator]
            if trainer.is_global_zero:
                self._write(trainer, pl_module, step)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        def draw() -> Tensor:
            with preserved():
                return self.picture(pl_module)  # type: ignore[arg-type]

        log_picture(trainer, "samples", draw, self.folder / f"step_{step:07d}.png")

    def picture(self, task: DiTTask) -> Tensor:
        """The grid, [3, H, W] from 0 to 1."""
        options = task.config.dit
        sampling = Sampling(
            sampler=options.sample_sampler,
            num_inference_steps=options.sample_steps,
            guidance_scale=options.sample_guidance,
            seed=task.config.seed,
        )
        pipeline = task.make_pipeline(sampling.ema, options.sample_sampler)
        columns = min(len(task.class_names), MAX_CLASSES)
        labels = list(range(columns)) * _ROWS
        (images,) = generate(pipeline, labels, range(len(labels)), sampling, len(labels))
        return image_grid(images, columns)
