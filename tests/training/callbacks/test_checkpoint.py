"""When last.ckpt is written, what stays of the one before, and what is never written."""

import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vision.training.callbacks.checkpoint import LastCheckpoint, WholeCheckpointIO
from vision.training.callbacks.metrics_csv import MetricsCSV, read_metrics


class Regression(pl.LightningModule):
    """A linear layer that may be broken at a step."""

    def __init__(self, broken_at: int | None = None) -> None:
        super().__init__()
        self.model = nn.Linear(8, 1)
        self.broken_at = broken_at
        self.trained = 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.trained += 1
        return self.model(batch).square().mean()

    def optimizer_step(self, *args: object, **kwargs: object) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.global_step + 1 == self.broken_at:  # counted when the step is over
            nn.init.constant_(self.model.bias, float("nan"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(
    task: Regression,
    callback: LastCheckpoint,
    accumulate: int = 1,
    batch_size: int = 4,
    resume: Path | None = None,
    logger: Logger | None = None,
) -> None:
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=logger or False, enable_checkpointing=True,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
        plugins=[WholeCheckpointIO()], accumulate_grad_batches=accumulate, log_every_n_steps=1,
    )  # fmt: skip
    loader = DataLoader(torch.ones(20, 8), batch_size=batch_size)
    trainer.fit(task, loader, ckpt_path=resume, weights_only=True)


def step_of(file: Path) -> int:
    return torch.load(file, weights_only=True)["global_step"]


def test_the_checkpoint_before_the_last_is_kept(tmp_path: Path) -> None:
    fit(Regression(), LastCheckpoint(tmp_path / "last.ckpt", every_n_steps=2))
    assert step_of(tmp_path / "last.ckpt") == 5  # the end of the epoch
    assert step_of(tmp_path / "previous.ckpt") == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]


def test_minutes_are_another_reason_to_save_but_only_between_steps(tmp_path: Path) -> None:
    callback = LastCheckpoint(tmp_path / "last.ckpt", every_n_minutes=1e-9)
    fit(Regression(), callback, accumulate=2)  # steps after batches 2, 4 and 5
    assert step_of(tmp_path / "last.ckpt") == 3
    assert step_of(tmp_path / "previous.ckpt") == 2


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path: Path) -> None:
    callback = LastCheckpoint(tmp_path / "last.ckpt", every_n_steps=1)
    with pytest.raises(FloatingPointError, match=r"model\.bias is not finite after step 3"):
        fit(Regression(broken_at=3), callback)
    assert step_of(tmp_path / "last.ckpt") == 2


def test_only_last_ckpt_has_one_before_it(tmp_path: Path) -> None:
    """A new best.ckpt once took the place of previous.ckpt, which then had no optimizer state."""
    fit(Regression(), LastCheckpoint(tmp_path / "last.ckpt", every_n_steps=2))
    for step in (1, 2):
        WholeCheckpointIO().save_checkpoint({"global_step": step}, tmp_path / "best.ckpt")
    assert step_of(tmp_path / "previous.ckpt") == 4
    assert step_of(tmp_path / "best.ckpt") == 2


def test_progress_counts_the_batches_of_the_run_that_resumes(tmp_path: Path) -> None:
    fit(Regression(), LastCheckpoint(tmp_path / "last.ckpt", every_n_steps=2))  # 5 batches: 5 steps
    file = tmp_path / "previous.ckpt"  # after step 4, in the middle of the epoch
    progress = torch.load(file, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    assert [progress["current"][key] for key in ("ready", "processed", "completed")] == [4, 4, 3]
    # half as many images at a time: 10 batches, 5 steps; the last step is left to do
    task = Regression()
    fit(task, LastCheckpoint(tmp_path / "other.ckpt"), accumulate=2, batch_size=2, resume=file)
    saved = torch.load(tmp_path / "other.ckpt", weights_only=True)
    assert saved["global_step"] == 5
    assert saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 10
    assert task.trained == 2  # batches of this run


def test_a_signal_saves_between_two_steps_and_stops(tmp_path: Path) -> None:
    class Told(Regression):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            if batch_idx == 2:
                signal.raise_signal(signal.SIGTERM)  # of the first half of the second step
            self.log("train/step", float(batch_idx // 2))
            return super().training_step(batch, batch_idx)

    before = signal.getsignal(signal.SIGTERM)
    table = MetricsCSV(tmp_path / "metrics.csv")
    with pytest.raises(SIGTERMException):
        fit(Told(), LastCheckpoint(tmp_path / "last.ckpt"), accumulate=2, logger=table)
    assert step_of(tmp_path / "last.ckpt") == 2
    # resuming goes on with the third step: the metrics of the second must be there
    rows = read_metrics(tmp_path / "metrics.csv")
    assert {step: row["train/step"] for step, row in rows.items()} == {0: 0.0, 1: 1.0}
    assert signal.getsignal(signal.SIGTERM) == before
