"""Fails when Lightning changes a private part that `lightning_private` uses."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader

from vision.training.callbacks.lightning_private import ProgressBar, count_batches_as, log_step


class Rows(Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    name = version = ""  # type: ignore[assignment]

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, metrics))


class Step(pl.LightningModule):
    steps = 3  # of the run's bar

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.log("index", float(batch_idx))
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Early(pl.Callback):
    """Logs the second of three steps before Lightning does, and saves."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.checkpoint: dict[str, Any] = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *arguments: Any
    ) -> None:
        if trainer.global_step == 2:
            assert [step for step, _ in self.rows] == [0]
            log_step(trainer)
            assert self.rows[-1] == (1, {"index": 1.0, "epoch": 0})
            trainer.save_checkpoint(trainer.default_root_dir + "/a.ckpt", weights_only=False)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.checkpoint = checkpoint


def test_private_interfaces_of_lightning_are_as_they_were(tmp_path, capsys) -> None:
    rows = Rows()
    early = Early(rows.rows)
    pl.Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", logger=rows,
        callbacks=[early, ProgressBar()], log_every_n_steps=1, enable_checkpointing=False,
        enable_model_summary=False,
    ).fit(Step(), DataLoader(torch.ones(3, 1)))  # fmt: skip
    assert "Epoch 1/1" in capsys.readouterr().out
    count_batches_as(early.checkpoint, 3)
    counts = early.checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    expected = {"ready": 6, "started": 6, "processed": 6, "completed": 5}
    assert counts["total"] == counts["current"] == expected
