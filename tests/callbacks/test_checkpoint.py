"""When last.ckpt is written, what stays of the one before, and what is never written."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vision.callbacks.checkpoint import LastCheckpoint, WholeCheckpointIO


class Regression(pl.LightningModule):
    """A linear layer that may be broken at a step."""

    def __init__(self, broken_at: int | None = None) -> None:
        super().__init__()
        self.model = nn.Linear(8, 1)
        self.broken_at = broken_at

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.model(batch).square().mean()

    def optimizer_step(self, *args: object, **kwargs: object) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.global_step + 1 == self.broken_at:  # counted when the step is over
            nn.init.constant_(self.model.bias, float("nan"))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(task: Regression, callback: LastCheckpoint, accumulate: int = 1) -> None:
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=True,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
        plugins=[WholeCheckpointIO()], accumulate_grad_batches=accumulate,
    )  # fmt: skip
    trainer.fit(task, DataLoader(torch.ones(20, 8), batch_size=4))  # 5 batches


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
