"""A look at the training images before training, through the command line."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from vision.config import load_config
from vision.training.train import open_data


def test_the_first_images_of_training_are_drawn(forked, tmp_path: Path) -> None:
    result = forked(
        "tools/preview.py", "configs/vit_ti.yaml", "mix.mixup=0.8", "--number", "10", "--output",
        tmp_path / "new" / "look.png",
    )  # fmt: skip
    assert "the first 10 training images" in result.stdout
    assert "without mixup and cutmix" in result.stdout
    with Image.open(tmp_path / "new" / "look.png") as picture:
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["look.png"]


def test_they_are_those_that_training_reads_first(monkeypatch, tmp_path: Path) -> None:
    from matplotlib.axes import Axes

    from vision.training.preview import write_preview

    config = load_config(["configs/vit_ti.yaml"], ["data.num_workers=0"]).config
    batch = next(iter(open_data(config)[0].train_dataloader()))
    drawn, titles = [], []
    monkeypatch.setattr(Axes, "imshow", lambda self, image, **_: drawn.append(image))
    monkeypatch.setattr(Axes, "set_title", lambda self, title, **_: titles.append(title))
    write_preview(config, 70, tmp_path / "look.png")
    assert len(drawn) == 70
    mean, std = config.data.mean[0], config.data.std[0]
    for image, seen in zip(batch.images, drawn, strict=False):
        torch.testing.assert_close((image[0] * std + mean).clamp(0, 1), seen)
    assert titles[: len(batch.targets)] == [str(int(t)) for t in batch.targets]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--number", "0"], "--number 0: expected 1 to 400"),
        (["--output", "look.gif"], "expected a .png, .pdf or .svg file"),
        (["data.name=folder", "data.root=/nowhere"], "data.root = '/nowhere': no such file"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(forked, arguments, message) -> None:
    result = forked("tools/preview.py", "configs/vit_ti.yaml", *arguments, code=2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
