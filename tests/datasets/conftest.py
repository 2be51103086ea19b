"""Small data sets of every kind, made in temporary folders."""

import dataclasses
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.config.schema import AugmentConfig, DataConfig

CLASSES = ("ant", "bee", "cat")


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def pictures() -> dict[str, list[tuple[str, str, bytes]]]:
    """(class, file stem, PNG bytes) of 10 train and 5 validation images, in class order."""
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 10), ("validation", 5)):
        names = sorted(CLASSES[i % 3] for i in range(count))
        splits[split] = [
            (name, f"{i:04d}", _png(Image.fromarray(rng.integers(0, 256, (14, 12, 3), np.uint8))))
            for i, name in enumerate(names)
        ]
    return splits


@pytest.fixture
def folder(tmp_path: Path, pictures: dict[str, list[tuple[str, str, bytes]]]) -> Path:
    """ROOT/train/CLASS/IMAGE.png and ROOT/val/CLASS/IMAGE.png."""
    for split, items in pictures.items():
        for name, stem, data in items:
            path = tmp_path / "folder" / {"validation": "val"}.get(split, split) / name
            path.mkdir(parents=True, exist_ok=True)
            (path / f"{stem}.png").write_bytes(data)
    return tmp_path / "folder"


@pytest.fixture(scope="session")
def write_tar() -> Callable[[Path, dict[str, bytes]], Path]:
    """Write {name: content} as an uncompressed tar."""

    def write(path: Path, members: dict[str, bytes]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture(scope="session")
def pixels() -> Callable[..., np.ndarray]:
    """Decode what a reader returned."""

    def decode(item: object) -> np.ndarray:
        image = item if isinstance(item, Image.Image) else Image.open(item)  # type: ignore[arg-type]
        return np.asarray(image.convert("RGB"))

    return decode


@pytest.fixture(scope="session")
def make_config() -> Callable[..., DataConfig]:
    """A `DataConfig` for small RGB (or grey) images, without worker processes."""

    def make(augment: dict | None = None, **changes: object) -> DataConfig:
        channels = changes.get("in_chans", 3)
        small = {"img_size": 8, "num_workers": 0, "mean": [0.5] * channels, "std": [0.5] * channels}
        config = DataConfig(**{**small, **changes})
        return dataclasses.replace(config, augment=AugmentConfig(**(augment or {})))

    return make
