"""tools/benchmark.py data on settings small enough for a test; no time is asserted."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from vision.benchmark.data import (
    OURS,
    PREFETCHER,
    TIMM,
    benchmark_data,
    data_config,
    timm_loader,
    write_pictures,
)
from vision.config.schema import DataConfig
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.reader import read_image
from vision.seeding import preserved, seed_globals


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    root: Path = tmp_path_factory.mktemp("pictures")
    write_pictures(root, 9)
    return data_config(root, workers=0, img_size=32, policy="rand-m9-mstd0.5-inc1")


def test_pictures_are_jpeg_of_256_to_500_pixels(settings: DataConfig) -> None:
    files = sorted(Path(str(settings.root)).glob("train/*/*.jpg"))
    assert len(files) == 9
    sizes = [Image.open(file).size for file in files]
    assert len(set(sizes)) > 5
    assert all(256 <= side <= 500 for size in sizes for side in size)


def test_all_loaders_are_measured_over_the_same_epochs(settings: DataConfig) -> None:
    results = benchmark_data(settings, batch=4, rounds=1)
    assert [r.loader for r in results] == [OURS, TIMM, PREFETCHER]
    assert {r.images for r in results} == {8}  # two full batches of nine images
    assert results[0].ratio == 1
    for r in results:
        assert r.ratio == pytest.approx(results[0].images_per_sec / r.images_per_sec)
        assert min(r.decode, r.augment, r.collate) > 0


def test_timm_transforms_the_images_as_ours_does(settings: DataConfig) -> None:
    data = ImageDataModule(settings, seed=0, batch_size_total=4)
    ours = data.train_dataloader().dataset
    timm = timm_loader(settings, 4, use_prefetcher=False).dataset
    for index in range(9):
        image, target = read_image(ours.reader, index, "RGB")
        pictures = []
        for transform in (ours.transform, timm.transform):
            with preserved():
                seed_globals(index)
                pictures.append(transform(image))
        assert torch.equal(*pictures)
        with preserved():
            assert timm[index][1] == target
