"""Percentage of time spent waiting for data, as metrics.csv has it, and the line per epoch."""

import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vision.datasets.dataset import ResumableLoader
from vision.training.callbacks.metrics_csv import MetricsCSV, read_metrics
from vision.training.callbacks.progress import DataWait, EpochLine


class Slow(Dataset):
    """Samples that take 20 ms to load."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.02)
        return torch.ones(1)


class Step(pl.LightningModule):
    """Steps of 60 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        time.sleep(0.06)
        return self.layer(batch).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, float]]:
    path = tmp_path_factory.mktemp("progress") / "metrics.csv"
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=MetricsCSV(path), callbacks=[DataWait()],
        log_every_n_steps=4, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Step(), ResumableLoader(Slow(), batch_size=1))
    return read_metrics(Path(path))


def test_waiting_for_data_is_measured_in_every_logged_step(
    rows: dict[int, dict[str, float]],
) -> None:
    percent = {step: row["train/data_wait_percent"] for step, row in rows.items() if row}
    assert sorted(percent) == [3, 7, 11, 15]  # every fourth of 18
    assert len(set(percent.values())) == 4


def test_it_is_the_percentage_of_time_between_logged_steps(
    rows: dict[int, dict[str, float]],
) -> None:
    percent = [row["train/data_wait_percent"] for row in rows.values() if "epoch" in row]
    assert len(percent) == 4
    # both sleep longer on a busy machine, but neither can be none of the time nor all of it
    assert all(1 < value < 99 for value in percent)


class Validated(Step):
    """Has a figure that is the same after every validation."""

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch).mean()
        self.log("train/loss", loss.detach(), on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("val/top1", torch.tensor(50.0))
        self.log("val/best", torch.tensor(50.0), reduce_fx="max")


def test_the_line_of_an_epoch_without_validation_repeats_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=5, check_val_every_n_epoch=2, logger=False,
        callbacks=[EpochLine(["train/loss", "val/top1", "val/best"])], num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    images = DataLoader([torch.ones(1)] * 2)
    trainer.fit(Validated(), images, images)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 5 and all("train/loss" in line for line in lines)
    shown = [("val/top1 50" in line, "val/best 50" in line) for line in lines]
    assert shown == [(False, False), (True, True), (False, False), (True, True), (False, False)]
