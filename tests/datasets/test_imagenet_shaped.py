"""A set with ImageNet's classes, sizes and oddities reads the same from all three forms."""

import runpy
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from vision.config import load_config
from vision.datasets.datamodule import ImageDataModule

SHAPED = runpy.run_path(str(Path(__file__).parents[1] / "imagenet_shaped.py"))


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    home = tmp_path_factory.mktemp("imagenet")
    folder = SHAPED["write_folder"](home / "folder", train=2, val=40)
    shards = SHAPED["write_shards"](folder, home / "shards")
    parquet = SHAPED["write_parquet"](folder, home / "parquet")
    return {
        "folder": [f"data.root={folder}"],
        "shards": [f"data.root={shards}", "data.name=wds"],
        "parquet": [f"data.root={home / 'cache'}", f"data.name=hfds/{parquet}"],
    }


def test_the_files_are_of_the_kinds_that_imagenet_has(forms: dict[str, list[str]]) -> None:
    root = Path(forms["folder"][0].removeprefix("data.root="))
    kinds: Counter[tuple[str | None, str]] = Counter()
    for file in (root / "train").glob("*/*.JPEG"):
        with Image.open(file) as image:
            kinds[image.format, image.mode] += 1
            kinds["turned", "by EXIF"] += 274 in image.getexif()
            assert 200 <= max(image.size) <= 800
    assert sum(kinds.values()) == 2200
    assert min(kinds.values()) == 200
    assert kinds.keys() == {
        ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("turned", "by EXIF"),
    }  # fmt: skip


def test_folders_shards_and_parquet_give_the_same_images(forms: dict[str, list[str]]) -> None:
    batches = {}
    for name, overrides in forms.items():
        config = load_config(["configs/data/imagenet.yaml"], [*overrides, "data.num_workers=0"])
        data = ImageDataModule(config.config.data, seed=0, batch_size_total=16)
        assert data.sizes == {"train": 2000, "validation": 40}
        assert data.class_names == SHAPED["CLASSES"]
        assert data.steps_per_epoch == 125
        batches[name] = [next(iter(data.train_dataloader())), *data.val_dataloader()]
    for name in ("shards", "parquet"):
        for ours, theirs in zip(batches["folder"], batches[name], strict=True):
            assert torch.equal(ours.images, theirs.images), name
            assert torch.equal(ours.targets, theirs.targets), name
