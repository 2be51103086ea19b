"""FID and other metrics of generated images, during and after training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from vision.config import Config
from vision.datasets.check import check_data
from vision.datasets.latents import encoded_images
from vision.diffusion.generate import Sampling
from vision.evaluation.generative.compare import compare_image_sets, with_statistics
from vision.evaluation.generative.extractors import create_extractor
from vision.evaluation.generative.image_set import ImageSet, open_image_set
from vision.evaluation.generative.sources import DataSource, PipelineSource
from vision.files import write_json
from vision.metrics.base import Options
from vision.notices import notice
from vision.registry import METRICS
from vision.seeding import preserved

if TYPE_CHECKING:
    from vision.tasks.dit import DiTTask


class GenerationMetrics(pl.Callback):
    """Logs the metrics in `evaluation.metrics` every N steps and when training ends.

    FID is `val/fid` with the extractor inception, else `val/fd`. Images are generated from the
    averaged weights, if there are any, and compared with `evaluation.reference`; at every step
    from the same noise. Latents are decoded. Each rank generates a part of them. Training is not
    affected: random states are restored. `FOLDER/step_N.json` holds the metrics with every setting
    that they depend on. Of images that are not finite there are none, and a line says so.
    """

    def __init__(self, config: Config, folder: Path) -> None:
        options = config.evaluation
        assert options.extractor is not None, "made only where one is set"
        self.config = config
        self.folder = folder
        self.options = Options(
            metrics=tuple(options.metrics),
            batch_size=options.batch_size,
            seed=config.seed,  # as tools/fid.py has one seed for subsets and images
        )
        self.extractor = create_extractor(options.extractor, options.weights, options.resize)
        self._real = open_reference(config)
        if self._real.source is None:  # statistics of other features are refused before training
            self._real = with_statistics(self._real, self.extractor, self.options)
        self._last = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        """Evaluate if this step is due; with accumulation, after the last batch of the step."""
        step, every = trainer.global_step, self.config.evaluation.every_n_steps
        if every is not None and step % every == 0 and step != self._last:
            self._evaluate(trainer, pl_module)  # type: ignore[arg-type]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the final weights."""
        if trainer.global_step != self._last:
            self._evaluate(trainer, pl_module)  # type: ignore[arg-type]

    def _evaluate(self, trainer: pl.Trainer, task: DiTTask) -> None:
        self._last = trainer.global_step
        try:
            with preserved(), task.whole_weights():
                result = self.compare(task)
        except FloatingPointError as error:
            notice(f"no metrics of generated images at step {self._last}: {error}")
            return
        found = {f"val/{name}": result[key] for key, name in self._names() if key in result}
        for logger in trainer.loggers:
            logger.log_metrics(found, trainer.global_step)
            logger.save()
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / f"step_{trainer.global_step:07d}.json", result)

    def compare(self, task: DiTTask) -> dict[str, Any]:
        """What `compare_image_sets` returns for the current weights."""
        options = self.config.evaluation
        sampling = Sampling(
            sampler=options.sampler,
            num_inference_steps=options.num_inference_steps,
            guidance_scale=options.guidance_scale,
            seed=self.config.seed,
        )
        pipeline = task.make_pipeline(sampling.ema, options.sampler)
        generated = PipelineSource("samples", pipeline, options.number, sampling)
        if self._real.statistics is None:
            self.extractor.model.to(task.device)
            self._real = with_statistics(self._real, self.extractor, self.options)
        return compare_image_sets(
            self._real,
            ImageSet("samples", generated),
            self.extractor,
            device=task.device,
            quiet=True,
            **vars(self.options),
        )

    def _names(self) -> Iterator[tuple[str, str]]:
        """The keys of results and what they are called in metrics.csv."""
        for metric in self.options.metrics:
            for output in METRICS.get(metric).outputs:
                yield from output.logged(self.extractor.is_fid_inception).items()


def open_reference(config: Config) -> ImageSet:
    """The real images: `evaluation.reference`, else those that the model is trained on.

    Raises ValueError or FileNotFoundError that names the key.
    """
    given, data = config.evaluation.reference, config.data
    if data.name == "latents":
        data = encoded_images(data)
    try:
        if given is not None:
            found = open_image_set(given)
        else:
            check_data(data)
            split = DataSource(data.name, data, "train")
            found = ImageSet(split.name, split)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"evaluation.reference = {'null' if given is None else given}: {error}; expected an "
            ".npz of statistics or images, a folder of images or a data config"
        ) from error
    if isinstance(found.source, DataSource) and found.source.size != data.img_size:
        raise ValueError(
            f"evaluation.reference = {given}: its images are resized to {found.source.size} "
            f"pixels, samples have {data.img_size}; set data.img_size there"
        )
    return found
