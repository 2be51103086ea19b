"""Image classification as a LightningModule."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytorch_lightning as pl
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric

from vision.config import Config
from vision.datasets.dataset import Batch
from vision.metrics.classification import ClassificationMetrics
from vision.models.classifier import create_classifier
from vision.tasks.optim import check_optimizer, create_optimizer, create_schedule


class ClassifyTask(pl.LightningModule):
    """Trains a timm model with the norm of `config`; an EMA of its weights is judged beside it.

    Logs `train/loss`, and `{val,test}/{top1,top5,loss}` for the weights and, where `ema.decay` is
    set, `{val,test}/ema_{top1,top5,loss}` for their average.
    """

    def __init__(self, config: Config, class_names: list[str], steps_per_epoch: int) -> None:
        super().__init__()
        check_optimizer(config.optim.opt)  # Lightning would ask only when the run has begun
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.class_names = class_names
        num_classes = len(class_names)
        self.model, self.conversion = create_classifier(config, num_classes)
        self.ema: ModelEmaV3 | None = None
        if config.ema.decay is not None:
            self.ema = ModelEmaV3(
                self.model, decay=config.ema.decay, use_warmup=config.ema.warmup
            ).requires_grad_(False)
        if config.trainer.compile:
            self.model.compile()
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
        # mixup smooths the targets that it mixes
        self.criterion = nn.CrossEntropyLoss(
            label_smoothing=0.0 if self.mixup else mix.label_smoothing
        )
        self.train_loss = MeanMetric()
        # in the checkpoint, so that an epoch resumed in its middle logs the mean over all of it
        self.train_loss.persistent(True)
        self.skipped = SumMetric()
        self.metrics = ClassificationMetrics(num_classes)
        self.ema_metrics = ClassificationMetrics(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] to logits [B, num_classes]."""
        return self.model(images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy of one batch; random numbers were seeded by `StepSeeding`."""
        images, targets = batch.images, batch.targets
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)
        loss = self.criterion(self(images), targets)
        self.train_loss.update(loss.detach())
        self.skipped.update(batch.skipped)
        count = len(images)
        self.log("train/loss_step", loss.detach(), prog_bar=True, batch_size=count)
        groups = self.trainer.optimizers[0].param_groups
        self.log("train/lr", max(group["lr"] for group in groups), batch_size=count)
        # not at every step: reading the value waits for the device
        looked_at = batch_idx % self.config.trainer.log_every_n_steps == 0
        if looked_at and not math.isfinite(value := loss.item()):
            raise FloatingPointError(
                f"the loss is {value} at step {self.global_step}: lower optim.lr "
                f"({self.config.optim.lr}), set optim.clip_grad, or use more warm-up"
            )
        if self.trainer.is_last_batch:
            self._log_epoch(count)
        return loss

    def _log_epoch(self, batch_size: int) -> None:
        """Log the mean loss of the epoch, and how many unreadable images were passed over."""
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": batch_size}
        self.log("train/loss", self.train_loss.compute(), **options)
        self.train_loss.reset()
        if self.config.data.on_corrupt == "skip":
            self.log("data/skipped", self.skipped.compute(), **options)
            self.skipped.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch for the weights and for their average."""
        self._judge(batch)

    def on_validation_epoch_end(self) -> None:
        """Log the figures over the validation split."""
        self._log_metrics("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Count one batch for the weights and for their average."""
        self._judge(batch)

    def on_test_epoch_end(self) -> None:
        """Log the figures over the test split."""
        self._log_metrics("test")

    def configure_optimizers(self) -> Any:
        """timm's optimizer, and its schedule stepped with every update."""
        optimizer = create_optimizer(self.model, self.config.optim)
        epochs = self.config.trainer.epochs
        schedule = create_schedule(optimizer, self.config.optim, epochs, self.steps_per_epoch)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm schedules are told the number of updates."""
        scheduler.step_update(self.global_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the average after the weights, before any checkpoint is written."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.model, step=self.global_step + 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make a checkpoint tell by itself what it is of."""
        checkpoint["vision"] = {
            "task": "classify",
            "config": dataclasses.asdict(self.config),
            "class_names": self.class_names,
        }

    def _judge(self, batch: Batch) -> None:
        self.skipped.update(batch.skipped)
        if len(batch.targets) == 0:
            return
        self.metrics.update(self.model(batch.images), batch.targets)
        if self.ema is not None:
            self.ema_metrics.update(self.ema.module(batch.images), batch.targets)

    def _log_metrics(self, stage: str) -> None:
        judged = [("", self.metrics)] + [("ema_", self.ema_metrics)] * (self.ema is not None)
        for prefix, metrics in judged:
            for name, value in metrics.compute().items():  # over all processes
                self.log(f"{stage}/{prefix}{name}", value)
            metrics.reset()
