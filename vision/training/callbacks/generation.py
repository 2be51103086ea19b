"""FID and friends of what a generator makes, during and after its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from vision.config import Config
from vision.evaluation.generative.compute import Options, compute, measure_real
from vision.evaluation.generative.extractors import open_extractor
from vision.evaluation.generative.open import Given
from vision.evaluation.generative.sources import DataSource, PipelineSource
from vision.files import write_json
from vision.seeding import preserved

if TYPE_CHECKING:
    from vision.tasks.dit import DiTTask


class GenerationMetrics(pl.Callback):
    """Logs `val/fid` (from the extractor inception), else `val/fd`, and the other figures of
    `evaluation.metrics`, at each n-th step and when training ends.

    Images are made from the averaged weights, where there are some, and compared with the
    training split. The images of a run are the same at every step but for the weights. Each
    process makes its share. Nothing of the training changes: random states are given back.
    `FOLDER/step_N.json` has the figures with every setting that they depend on.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        options = config.evaluation
        assert options.extractor is not None, "made only where one is set"
        self.config = config
        self.folder = folder
        self.options = Options(
            metrics=tuple(options.metrics),
            batch_size=options.batch_size,
            confidence_groups=0,
        )
        self.extractor = open_extractor(options.extractor, options.weights, options.resize)
        split = DataSource(config.data.name, config.data, "train")
        self._real = Given(split.name, split)
        self._last = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Judge where the step is due; of an accumulated batch the last part counts."""
        step, every = trainer.global_step, self.config.evaluation.every_n_steps
        if every is not None and step % every == 0 and step != self._last:
            self._judge(trainer, pl_module)  # type: ignore[arg-type]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the weights that training ends with."""
        if trainer.global_step != self._last:
            self._judge(trainer, pl_module)  # type: ignore[arg-type]

    def _judge(self, trainer: pl.Trainer, task: DiTTask) -> None:
        self._last = trainer.global_step
        with preserved(), task.whole_weights():
            result = self.compare(task)
        names = {} if self.extractor.name == "inception" else {"fid": "fd", "kid": "kd"}
        found = {f"val/{names.get(key, key)}": result[key] for key in result["labels"]}
        for logger in trainer.loggers:
            logger.log_metrics(found, trainer.global_step)
            logger.save()
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / f"step_{trainer.global_step:07d}.json", result)

    def compare(self, task: DiTTask) -> dict[str, Any]:
        """What `vision.evaluation.generative.compute` says of the weights as they are now."""
        options = self.config.evaluation
        pipeline: Any = task.make_pipeline(ema=True, sampler=options.sampler)
        pipeline.set_progress_bar_config(disable=True)
        generated = PipelineSource(
            "samples",
            pipeline,
            options.number,
            self.config.seed,
            guidance_scale=options.guidance_scale,
            num_inference_steps=options.num_inference_steps,
        )
        training = pipeline.transformer.training
        pipeline.transformer.eval()
        try:
            if self._real.measured is None:
                self.extractor.model.to(task.device)
                self._real = measure_real(self._real, self.extractor, self.options)
            return compute(
                self._real,
                Given("samples", generated),
                self.extractor,
                device=task.device,
                quiet=True,
                **vars(self.options),
            )
        finally:
            pipeline.transformer.train(training)
