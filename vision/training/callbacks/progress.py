"""Speed and progress of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn
from torch import Tensor

from vision.text import show
from vision.training.callbacks.lightning_private import ProgressBar

# metric -> how it is called beside the progress bar
_BESIDE = {"train/loss_step": "loss", "train/images_per_sec": "images/s"}
_ROOM = 110  # columns of a terminal from which on they are there; the lines of epochs have them too


def ends_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether this batch completes an optimizer step; an epoch's last batch does in any case."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def is_logged(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether Lightning logs the step that ended with this batch, or the epoch ends with it.

    Elsewhere nothing is logged: even a number waits for its copy to the device.
    """
    if trainer.is_last_batch:
        return True
    due = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
    return due and ends_step(trainer, batch_idx)


class LoggedProgressBar(ProgressBar):
    """Lightning's progress bar in lines that do not wrap, since rich leaves parts of those behind.

    Metrics are as of the last logged step: reading them waits for the device.
    """

    def __init__(self) -> None:
        super().__init__()
        self._fresh = True
        self._has_room = True
        self._shown: dict[str, Any] = {}

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance by one batch."""
        self._fresh = is_logged(trainer, batch_idx)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._fresh = True

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What is shown beside the bar."""
        if self._fresh:
            # not by `log(prog_bar=True)`: Lightning reads those whenever it is asked for any metric
            values = trainer.callback_metrics
            shown = {name: float(values[key]) for key, name in _BESIDE.items() if key in values}
            self._shown = {**super().get_metrics(trainer, pl_module), **shown}
        return self._shown if self._has_room else {}

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """Lightning's, the bar as long as the others leave room for."""
        columns, width = super().configure_columns(trainer), Console().width
        self._has_room = width >= _ROOM
        others = 95 if self._has_room else 72
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = min(max(width - others, 5), 40)
        return columns


class Throughput(pl.Callback):
    """Logs `train/images_per_sec` over all devices, between two logged steps."""

    def __init__(self) -> None:
        self._images = 0
        self._since: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart, so that validation and checkpoints are not measured."""
        self._images, self._since = 0, None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count images; the first batch includes warm-up and only starts the clock."""
        now = time.perf_counter()
        if self._since is None:
            self._since = now
            return
        self._images += len(batch.targets) * trainer.world_size
        if is_logged(trainer, batch_idx):
            rate = self._images / max(now - self._since, 1e-9)
            pl_module.log("train/images_per_sec", rate, rank_zero_only=True)
            self._images, self._since = 0, now


class DataWait(pl.Callback):
    """Logs `train/data_wait_percent`: percentage of time spent waiting for data.

    Measured between two logged steps, and the largest over ranks, since the others wait for that
    one.
    """

    def __init__(self) -> None:
        self._since: tuple[float, float] | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart, so that validation and checkpoints are not measured."""
        self._since = None

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log; the first batch includes the start of the workers and only starts the clock."""
        waited = trainer.train_dataloader.waited  # type: ignore[union-attr]
        now = time.perf_counter()
        if self._since is None:
            self._since = now, waited
        elif is_logged(trainer, batch_idx):
            percent = 100 * (waited - self._since[1]) / max(now - self._since[0], 1e-9)
            pl_module.log("train/data_wait_percent", percent, sync_dist=True, reduce_fx="max")
            self._since = now, waited


class EpochLine(pl.Callback):
    """Prints one line per epoch, which stays when the progress bar is gone.

    `shown`: names of the metrics in it; those that were not logged in the epoch are left out, such
    as those of validation where an epoch has none.
    """

    def __init__(self, shown: Sequence[str]) -> None:
        self.shown = shown
        self._before: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note what earlier epochs logged: Lightning keeps the last value of every metric."""
        self._before = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch's metrics, on rank 0."""
        if not trainer.is_global_zero:
            return
        # a metric that is logged again is another tensor, if of the same value
        values = {k: v for k, v in trainer.callback_metrics.items() if v is not self._before.get(k)}
        metrics = "  ".join(
            f"{key} {float(values[key]):.4g}" for key in self.shown if key in values
        )
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs
        show(f"epoch {epoch:>{len(str(last))}}/{last}  {metrics}")
