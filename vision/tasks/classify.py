"""Image classification as a LightningModule."""

from __future__ import annotations

from typing import ClassVar

from timm.data import Mixup
from torch import Tensor, nn

from vision.config import Config
from vision.datasets.dataset import Batch
from vision.datasets.splits import check_classes
from vision.metrics.classification import ClassificationMetrics, last_if_not_finite
from vision.models.classifier import create_classifier
from vision.norms.conversion import Conversion
from vision.registry import TASKS
from vision.tasks.base import VisionTask
from vision.tasks.inputs import as_input


@TASKS.register("classify")
class ClassifyTask(VisionTask):
    """Trains a timm model with the norm of `config` on cross-entropy.

    Metrics are `top1`, `top5`, `loss` and, of the averaged weights, `ema_{top1,top5,loss}`.
    """

    monitor: ClassVar = ("val/top1", "max")
    shown: ClassVar = ("train/loss", "val/loss", "val/top1", "val/ema_top1")
    curves: ClassVar = {"loss": "cross-entropy (nats)", "top1": "top-1 accuracy (%)"}
    measures: ClassVar = ("top1", "top5", "loss")  # top5: of more than five classes

    predicted: Tensor  # [B] classes of the last batch evaluated, by the trained weights

    def __init__(self, config: Config, class_names: list[str], steps_per_epoch: int) -> None:
        check_classes(config.data, class_names)
        super().__init__(config, class_names, steps_per_epoch)
        num_classes = len(class_names)
        mix = config.mix
        self.mixup = None
        if mix.mixup > 0 or mix.cutmix > 0:
            self.mixup = Mixup(
                mixup_alpha=mix.mixup,
                cutmix_alpha=mix.cutmix,
                prob=mix.prob,
                switch_prob=mix.switch_prob,
                label_smoothing=mix.label_smoothing,
                num_classes=num_classes,
            )
        # mixup smooths the targets itself
        self.criterion = nn.CrossEntropyLoss(
            label_smoothing=0.0 if self.mixup else mix.label_smoothing
        )
        self.metrics = nn.ModuleList(
            ClassificationMetrics(num_classes) for _ in self.evaluated_models()
        )

    @classmethod
    def create_model(cls, config: Config, num_classes: int) -> tuple[nn.Module, Conversion]:
        """The timm model of `config`."""
        return create_classifier(config, num_classes)

    def train(self, mode: bool = True) -> ClassifyTask:
        """Set training mode; the frozen part of a linear probe stays in eval mode."""
        super().train(mode)
        if self.config.model.linear_probe:
            self.model.eval()
            self.model.get_submodule("head").train(mode)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, num_classes]."""
        return self.model(images)

    def compute_loss(self, batch: Batch) -> Tensor:
        images, targets = batch.images, batch.targets
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)
        return self.criterion(self(images), targets)

    def evaluate_batch(self, batch: Batch) -> None:
        models = self.evaluated_models().values()
        for i, (model, metrics) in enumerate(zip(models, self.metrics, strict=True)):
            logits = model(as_input(batch.images, model))
            metrics.update(logits, batch.targets)  # type: ignore[operator]
            if i == 0:
                ranked = last_if_not_finite(logits, batch.targets)
                self.predicted = ranked.argmax(1)
