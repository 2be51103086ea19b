"""Masked autoencoders through the command line: pre-train, kill and resume, fine-tune, draw."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_tensor

from vision.config import load_config
from vision.datasets.datamodule import ImageDataModule
from vision.pictures import enlarge

CONFIG = ("configs/mae_ti.yaml", "configs/norm/seednorm.yaml")
EPOCHS = 3
STEPS = EPOCHS * (1257 // 32)


@pytest.fixture(scope="module")
def arguments(small: list[str]) -> list[str]:
    return [
        *CONFIG, *small, f"trainer.epochs={EPOCHS}", "norm.options.num_heads=4",
        "mae.decoder_embed_dim=32", "mae.decoder_num_heads=2", "mae.decoder_norm=layernorm",
        "mae.knn_every_n_epochs=2", "mae.pictures_every_n_epochs=2", "mae.pictures=3",
        "trainer.val_every_n_epochs=1", "trainer.checkpoint_every_n_steps=5", "name=run",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def pretrained(forked, arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("mae")
    result = forked("tools/train.py", *arguments, f"output_dir={output}")
    (output / "stdout").write_text(result.stdout)
    return output / "run"


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").open()))


@pytest.mark.slow
def test_a_run_writes_losses_neighbours_and_pictures(pretrained: Path) -> None:
    stdout = (pretrained.parent / "stdout").read_text()
    assert "SeeDNorm and LayerNorm" in stdout
    found = {int(row["step"]): float(row["val/knn_top1"]) for row in rows(pretrained) if
             row["val/knn_top1"]}  # fmt: skip
    assert len(found) == 3  # before training, after epochs 2 and 3
    assert 0 in found
    assert all(10 < value <= 100 for value in found.values())  # better than chance on 10 classes
    losses = [float(row["val/loss"]) for row in rows(pretrained) if row["val/loss"]]
    assert len(losses) == EPOCHS
    assert losses[-1] < losses[0]
    pictures = sorted(p.name for p in (pretrained / "reconstructions").iterdir())
    assert pictures == ["0002.png", "0003.png"]
    size = 96 + 4  # an image and its border
    assert Image.open(pretrained / "reconstructions" / "0003.png").size == (
        3 * size + 4, 3 * size + 4,
    )  # fmt: skip
    # the originals, in the first column, are spread over the split
    split = load_config([pretrained / "config.yaml"]).config.data
    split.mean, split.std = [0.0], [1.0]
    data = ImageDataModule(split, seed=0, batch_size_total=3)
    expected = next(iter(data.ordered_loader("validation", range(0, 180, 60)))).images
    picture = to_tensor(Image.open(pretrained / "reconstructions" / "0003.png"))
    drawn = torch.stack([picture[:1, y : y + 96, 4:100] for y in range(4, 3 * size, size)])
    torch.testing.assert_close(drawn, enlarge(expected, 96), atol=1 / 255, rtol=0)
    events = list((pretrained / "tensorboard").glob("events*"))
    assert any(b"reconstruction" in file.read_bytes() for file in events)
    summary = json.loads((pretrained / "summary.json").read_text())
    assert summary["task"] == "mae"
    assert summary["steps"] == STEPS


@pytest.mark.slow
def test_resume_of_pre_training_after_sigkill_is_bit_exact(
    forked, kill, assert_same_training, arguments: list[str], pretrained: Path, tmp_path: Path
) -> None:
    killed = [*arguments, f"output_dir={tmp_path}", "--resume"]
    kill(killed, saves=10)  # in the second epoch
    forked("tools/train.py", *killed)
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert [start["resumed_from_step"] is None for start in starts] == [True, False]
    assert_same_training(pretrained, tmp_path / "run")


@pytest.mark.slow
def test_fine_tuning_reports_what_it_took_from_the_run(
    forked, small: list[str], pretrained: Path, tmp_path: Path
) -> None:
    tuned = [
        "configs/mae_ti_finetune.yaml", "configs/norm/seednorm.yaml",
        *small, "norm.options.num_heads=4",
        "trainer.epochs=2", "trainer.batch_size_total=24",
        f"output_dir={tmp_path}", "name=tuned",
    ]  # fmt: skip
    result = forked("tools/train.py", *tuned, f"model.init_from={pretrained}")
    assert "120 train" in result.stdout
    assert "missing 5: fc_norm.alpha, fc_norm.beta, fc_norm.gamma, head.bias" in result.stdout
    assert "unexpected" in result.stdout
    state = torch.load(tmp_path / "tuned" / "last.ckpt", weights_only=True)["state_dict"]
    start = torch.load(pretrained / "last.ckpt", weights_only=True)["state_dict"]
    name = "blocks.0.attn.qkv.weight"
    moved = (state[f"model.{name}"] - start[f"model.encoder.{name}"]).norm()
    assert 0 < moved < 0.5 * start[f"model.encoder.{name}"].norm()


@pytest.mark.slow
def test_a_picture_of_ones_own_images(tool, pretrained: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    target = tmp_path / "new" / "picture.png"
    own = tmp_path / "a.png"
    said = tool("reconstruct", pretrained, own, own, "--output", target).stdout
    assert "a hidden patch has the mean and deviation of the true one: not predicted" in said
    picture = np.asarray(Image.open(target))
    assert picture.shape == (2 * 100 + 4, 3 * 100 + 4, 3)
    original, masked, filled = (picture[4:100, 4 + 100 * i : 100 * (i + 1)] for i in range(3))
    assert (original != masked).any(axis=-1).mean() == pytest.approx(0.75, abs=0.13)
    assert (filled == original).all(axis=-1).mean() >= 0.2  # visible patches stay
