"""Masked autoencoder pre-training as a LightningModule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from vision.config import Config
from vision.datasets.dataset import Batch
from vision.models.mae import MAE, create_mae
from vision.norms.conversion import Conversion
from vision.registry import TASKS
from vision.seeding import generator_for
from vision.tasks.base import VisionTask


@TASKS.register("mae")
class MAETask(VisionTask):
    """Trains an `MAE` on the squared error over removed patches; labels are never trained on.

    Metrics are `loss`, under masks that depend on the seed and each image's index alone, and, every
    n epochs, `knn_top1` of the frozen encoder.
    """

    monitor: ClassVar = ("val/loss", "min")
    shown: ClassVar = ("train/loss", "val/loss", "val/knn_top1")
    curves: ClassVar = {
        "loss": "squared error over removed patches",
        "knn_top1": "k-NN top-1 accuracy (%)",
    }
    measures: ClassVar = ("loss",)

    unused: ClassVar = (
        *VisionTask.unused,
        "model.pretrained",
        "model.linear_probe",
        "model.global_pool",
        "mix.mixup",
        "mix.cutmix",
        "mix.label_smoothing",
        "optim.layer_decay",
    )

    def __init__(self, config: Config, class_names: list[str], steps_per_epoch: int) -> None:
        super().__init__(config, class_names, steps_per_epoch)
        mean = MeanMetric(nan_strategy="disable")
        self.metrics = nn.ModuleList([MetricCollection({"loss": mean})])
        self.draws = MaskDraws(config.seed, cast(MAE, self.model).grid ** 2)

    @classmethod
    def create_model(cls, config: Config, num_classes: int) -> tuple[nn.Module, Conversion]:
        """The autoencoder of `config`, which knows no classes."""
        return create_mae(config)

    @classmethod
    def check(cls, config: Config) -> None:
        """As every task; and options of the decoder's norm are those of a norm that is named."""
        super().check(config)
        if config.mae.decoder_norm is None and config.mae.decoder_norm_options:
            raise ValueError(
                f"mae.decoder_norm_options = {config.mae.decoder_norm_options}: of no norm; give "
                "mae.decoder_norm, or leave them out for the encoder's norm.options"
            )

    @classmethod
    def metric_names(cls, config: Config) -> list[str]:
        """The average of the weights is not evaluated."""
        return list(cls.measures)

    def compute_loss(self, batch: Batch) -> Tensor:
        (places,) = self.draws_of(batch, training=True)
        loss, _, _ = self.model(batch.images, self.config.mae.mask_ratio, places)
        return loss

    def model_inputs(self, batch: Batch) -> tuple[Any, ...]:
        (places,) = self.draws_of(batch, training=False)
        return batch.images, self.config.mae.mask_ratio, places

    def evaluate_batch(self, batch: Batch) -> None:
        loss, _, _ = self.model(*self.model_inputs(batch))
        # once per image: MeanMetric ignores weights if its NaN check is off
        self.metrics[0].update(loss.expand(len(batch.images)))  # type: ignore[operator]


@dataclass(frozen=True)
class MaskDraws:
    """Each patch of an image has a place in a random order; the first places stay visible.

    Places [length] int64, not the uniform numbers that they are made of: no precision rounds them.
    """

    seed: int
    length: int  # patches

    def __call__(self, index: int, epoch: int | None) -> tuple[Tensor]:
        keys = () if epoch is None else ("train", epoch)
        noise = torch.rand(self.length, generator=generator_for(self.seed, "mask", *keys, index))
        return (noise.argsort().argsort(),)
