"""The DiT task: its loss, its evaluation, its samples."""

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from vision.config import Config, load_config
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import Batch
from vision.pictures import image_grid
from vision.tasks.dit import DiTTask
from vision.training.callbacks.metrics_csv import MetricsCSV
from vision.training.callbacks.samples import SampleGrid
from vision.training.callbacks.seeding import StepSeeding

ROOT = Path(__file__).parents[2]
FILES = ("configs/dit_b4.yaml", "configs/norm/seednorm.yaml")
SMALL = ["model.embed_dim=32", "model.depth=1", "model.num_heads=2", "dit.sample_steps=2"]


def make_config(*overrides: str) -> Config:
    return load_config([ROOT / file for file in FILES], [*SMALL, *overrides]).config


def make_task(*overrides: str) -> DiTTask:
    torch.manual_seed(0)
    return DiTTask(make_config(*overrides), [str(i) for i in range(10)], 19)


def batch(count: int = 8) -> Batch:
    images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(count) % 10, torch.arange(count), torch.tensor(0))


def fit(task: DiTTask, folder: Path, *callbacks: pl.Callback, steps: int = 3) -> MetricsCSV:
    data = ImageDataModule(task.config.data, seed=0, batch_size_total=64)
    folder.mkdir(exist_ok=True)
    table = MetricsCSV(folder / "metrics.csv", None)
    pl.Trainer(
        max_epochs=1,
        limit_train_batches=steps,
        limit_val_batches=0,
        accelerator="cpu",
        logger=[table],
        callbacks=[StepSeeding(0), *callbacks],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    ).fit(task, data)
    return table


def test_validation_uses_the_same_noise_each_time_whatever_the_batch() -> None:
    task = make_task()
    losses = []
    for size in (8, 8, 2):
        whole = batch()
        for start in range(0, 8, size):
            part = Batch(*(field[start : start + size] for field in whole[:3]), whole.skipped)
            torch.manual_seed(start)
            task.evaluate_batch(part)
        losses.append({name: float(value) for name, value in task.compute_metrics().items()})
    assert losses[0] == losses[1]
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)
    assert losses[0].keys() == {"loss", "mse", "vb", "ema_loss", "ema_mse", "ema_vb"}
    assert losses[0]["loss"] == pytest.approx(losses[0]["mse"] + losses[0]["vb"], rel=1e-5)


def test_fixed_draws_cover_the_timesteps() -> None:
    task = make_task()
    drawn = zip(*(task.draws(index, None) for index in range(500)), strict=True)
    noise, t, _ = (torch.stack(values) for values in drawn)
    assert noise.shape == (500, 1, 8, 8)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert t.float().mean().item() == pytest.approx(499.5, abs=40)
    assert t.min() < 20 and t.max() > 980


def test_an_untrained_model_has_the_error_of_predicting_no_noise() -> None:
    task = make_task()
    loss = task.compute_loss(batch(64))
    assert 0.9 < loss.item() < 1.3  # the variance of the noise, and the bound
    assert make_task("dit.learn_sigma=false").model.out_channels == 1


def test_errors_are_logged_by_quarter_of_the_timesteps(tmp_path: Path) -> None:
    table = fit(make_task("optim.warmup_epochs=0"), tmp_path, steps=15)
    (row,) = (row for row in table.rows.values() if "train/mse_q1" in row)
    quarters = [float(row[f"train/mse_q{i}"]) for i in range(1, 5)]
    assert len(set(quarters)) == 4 and all(0 < value < 2 for value in quarters)
    # noise is easiest to see where there is most of it
    assert quarters[3] < quarters[0]


def test_sampling_meanwhile_changes_nothing(tmp_path: Path) -> None:
    states = []
    for name, every in (("without", None), ("with", 1)):
        task = make_task()
        grids = [SampleGrid(tmp_path / "samples", every)] if every else []
        fit(task, tmp_path / name, *grids, steps=2)
        assert task.model.training
        states.append(task.state_dict())
    torch.testing.assert_close(states[0], states[1], atol=0, rtol=0)
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == ["step_0000001.png", "step_0000002.png"]
    assert Image.open(tmp_path / "samples" / files[0]).size == (10 * 34 + 2, 4 * 34 + 2)


def test_the_pipeline_samples_from_the_average_when_asked() -> None:
    task = make_task()
    assert task.make_pipeline(ema=True).transformer is task.ema.module
    assert task.make_pipeline(ema=False).transformer is task.model
    assert make_task("ema.decay=null").make_pipeline(ema=True).vae is None
    pipeline = task.make_pipeline(ema=False, sampler="unipc")
    assert pipeline.labels["7"] == 7
    assert type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler"


def test_options_reach_the_model_and_errors_name_their_key() -> None:
    task = make_task(
        "dit.zero_init=false", "dit.gradient_checkpointing=true", "dit.min_snr_gamma=5"
    )
    assert task.model.gradient_checkpointing
    assert task.model.final_layer.linear.weight.abs().max() > 0
    assert math.isfinite(task.compute_loss(batch()).item())
    with pytest.raises(ValueError, match=r"norm\.options = .*num_heads=5"):
        make_task("norm.options.num_heads=5")


def test_a_run_that_had_affine_norms_by_default_is_not_resumed_without_them() -> None:
    affine = make_task("norm.options.affine=true")
    state = {f"model.{name}": tensor for name, tensor in affine.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"add norm\.options\.affine=true to its config\.yaml"):
        make_task().on_load_checkpoint({"state_dict": state})
    affine.on_load_checkpoint({"state_dict": state})


def test_the_start_of_a_run_says_that_norms_are_not_affine() -> None:
    plain = "3 norms -> SeeDNorm: 3 LayerNorm"
    assert str(make_task("norm.options.affine=true").conversion) == plain
    assert str(make_task().conversion) == f"{plain}; affine=false, as published"
    dropped = make_task("norm.options.coefficient_dropout=0.1").conversion
    assert dropped.notes == ("affine=false, as published", "coefficient dropout 0.1")


def test_small_images_are_enlarged_so_that_people_can_see_them() -> None:
    grid = image_grid(torch.full((6, 1, 8, 8), 255, dtype=torch.uint8), columns=3)
    assert grid.shape == (3, 2 * 34 + 2, 3 * 34 + 2)
    assert image_grid(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), 2).shape == (3, 68, 134)
