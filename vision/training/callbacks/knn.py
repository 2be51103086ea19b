"""k-NN accuracy of a frozen encoder while it trains, and before."""

from __future__ import annotations

from collections.abc import Iterable

import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.utilities.distributed import gather_all_tensors

from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import Batch
from vision.metrics.knn import knn_predict
from vision.notices import notice
from vision.text import show


class KnnAccuracy(pl.Callback):
    """Logs `val/knn_top1` (percent): validation images classified by their nearest training images.

    Neighbors are searched in `task.model.features` of images prepared as for evaluation. Logged
    before training (the random encoder, as step 0), every n epochs and after the last.
    """

    def __init__(self, every_n_epochs: int, neighbors: int) -> None:
        self.every_n_epochs = every_n_epochs
        self.neighbors = neighbors

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the untrained encoder, as a baseline."""
        if trainer.global_step > 0 or not self._has_classes(trainer):
            return
        training = pl_module.training
        pl_module.eval()
        with pl_module.whole_weights():  # type: ignore[operator]
            value = self._accuracy(trainer, pl_module)
        pl_module.train(training)
        for logger in trainer.loggers:
            logger.log_metrics({"val/knn_top1": value}, step=0)
        if trainer.is_global_zero:
            show(f"k-NN    {value:.2f} % top-1 before training")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate the encoder if the epoch is due."""
        epoch = trainer.current_epoch + 1
        due = epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs
        if due and self._has_classes(trainer):
            pl_module.log("val/knn_top1", self._accuracy(trainer, pl_module))

    def _has_classes(self, trainer: pl.Trainer) -> bool:
        """Whether there are classes to tell apart; images without labels are in one folder."""
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        if data.num_classes < 2:
            notice("no val/knn_top1: the images have one class; mae.knn_every_n_epochs is ignored")
        return data.num_classes > 1

    @torch.no_grad()
    def _accuracy(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> float:
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        # each rank computes features of its part of both splits, and needs the whole bank
        bank, labels = (_gather(t) for t in _features(trainer, pl_module, data.bank_dataloader()))
        features, targets = _features(trainer, pl_module, data.val_dataloader())
        predicted = knn_predict(features, bank, labels, data.num_classes, self.neighbors)
        metric = MeanMetric().to(pl_module.device)  # over all ranks
        metric.update((predicted == targets).float())
        return 100 * float(metric.compute())


def _features(
    trainer: pl.Trainer, pl_module: pl.LightningModule, loader: Iterable[Batch]
) -> tuple[Tensor, Tensor]:
    """Features [N, D] and classes [N] of this rank's part of a split."""
    model, precision = pl_module.get_submodule("model"), trainer.precision_plugin
    features, targets = [], []
    with precision.forward_context():
        for batch in loader:
            images = precision.convert_input(batch.images.to(pl_module.device))
            features.append(model.features(images).float())  # type: ignore[operator]
            targets.append(batch.targets.to(pl_module.device))
    return torch.cat(features), torch.cat(targets)


def _gather(tensor: Tensor) -> Tensor:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.cat(gather_all_tensors(tensor)) if distributed else tensor
