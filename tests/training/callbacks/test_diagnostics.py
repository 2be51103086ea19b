"""Diagnostics of norms, against the same metrics computed by hand."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vision.norms import create_norm
from vision.training.callbacks.diagnostics import NormDiagnostics
from vision.training.callbacks.metrics_csv import read_metrics


class Regression(pl.LightningModule):
    """One norm before one linear layer."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.model = nn.Sequential(norm, nn.Linear(8, 1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.model(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(norm: nn.Module, x: Tensor, folder: Path, every: int) -> dict[int, dict[str, float]]:
    callback = NormDiagnostics(folder / "diagnostics.csv", every)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
    )  # fmt: skip
    task = Regression(norm)
    trainer.fit(task, DataLoader(x, batch_size=4))
    assert not task.model[0]._forward_hooks  # nothing stays hooked
    return read_metrics(folder / "diagnostics.csv")


def test_seednorm_logs_its_coefficient_and_its_gradients(tmp_path: Path) -> None:
    torch.manual_seed(0)
    norm = create_norm("seednorm", 8, num_heads=2)
    nn.init.normal_(norm.beta)
    x = 3 * torch.randn(20, 8)
    rows = fit(norm, x, tmp_path, every=2)
    assert sorted(rows) == [0, 2, 4]  # five steps
    seen = x[8:12]
    dynamic = torch.tanh((seen * norm.beta).view(4, 2, 4).sum(-1))
    row = rows[2]
    assert row["0/input_rms"] == pytest.approx(float(seen.square().mean().sqrt()), rel=1e-5)
    assert row["0/output_rms"] == pytest.approx(float(norm(seen).square().mean().sqrt()), rel=1e-5)
    assert row["0/dynamic_mean"] == pytest.approx(float(dynamic.mean()), rel=1e-4)
    assert row["0/dynamic_std"] == pytest.approx(float(dynamic.std(correction=0)), rel=1e-4)
    assert row["0/dynamic_saturated"] == pytest.approx(float((dynamic.abs() > 0.99).float().mean()))
    assert row["0/norm_beta"] == pytest.approx(float(norm.beta.norm()), rel=1e-5)
    assert row["0/grad_norm_alpha"] > 0


@pytest.mark.parametrize("name", ["dyt", "derf"])
def test_saturation_is_the_fraction_beyond_the_bound(name: str, tmp_path: Path) -> None:
    x = torch.zeros(4, 8)
    x[:, :2] = 100.0  # two of eight channels
    rows = fit(create_norm(name, 8), x, tmp_path, every=1)
    assert rows[0]["0/saturated"] == pytest.approx(0.25)
