"""Images per second of our loader and of timm's, from the same files by the same transforms."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_dataset, create_loader

from vision.benchmark.timing import Work, alternate
from vision.config.schema import AugmentConfig, DataConfig
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import ImageDataset, Sample
from vision.datasets.readers import read_image
from vision.datasets.sampler import Draw
from vision.datasets.transforms import training_options
from vision.seeding import derive_seed, preserved

OURS = "ours"
TIMM = "timm, no prefetcher"  # its workers normalize, as ours do
PREFETCHER = "timm, prefetcher"  # its default: uint8 from the workers, normalized where it trains


@dataclass(frozen=True)
class DataSettings:
    """What is loaded: ROOT/train/CLASS/IMAGE, augmented as the ImageNet recipe does."""

    root: Path
    batch: int = 64
    workers: int = 2
    img_size: int = 224
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"

    def config(self) -> DataConfig:
        """The same in a run's terms."""
        augment = AugmentConfig(auto_augment=self.auto_augment, color_jitter=0.4, re_prob=0.25)
        return DataConfig(
            name="folder",
            root=str(self.root),
            val_split="train",
            img_size=self.img_size,
            augment=augment,
            num_workers=self.workers,
        )


@dataclass(frozen=True)
class DataResult:
    """One loader; medians. Steps are those of one process, in seconds per image."""

    loader: str
    images: int  # per epoch
    workers: int
    batch: int
    img_size: int
    images_per_sec: float
    ratio: float  # images/s of ours to those of this one, epoch by epoch
    decode: float  # open, decode, convert to RGB
    augment: float  # all transforms, and seeding them where that is done
    collate: float  # samples to a batch, normalized at last


def benchmark_data(
    settings: DataSettings, rounds: int, progress: Callable[[str], None] = lambda text: None
) -> list[DataResult]:
    """Times `rounds` epochs of each loader, in turn, and then each one's steps on a batch.

    Raises ValueError or FileNotFoundError where there are no images, or not one batch of them.
    """
    progress("opening")
    data = ImageDataModule(settings.config(), seed=0, batch_size_total=settings.batch)
    ours = data.train_dataloader()
    loaders: dict[str, Any] = {
        OURS: ours,
        TIMM: timm_loader(settings, use_prefetcher=False),
        PREFETCHER: timm_loader(settings, use_prefetcher=True),
    }
    epochs = {name: _epoch(loader) for name, loader in loaders.items()}
    seconds = alternate(epochs, rounds, after_round=lambda: progress("epochs"))
    parts: dict[str, Work] = {}
    for name, loader in loaders.items():
        steps = _our_steps(loader, settings) if loader is ours else _timm_steps(loader, settings)
        parts |= {f"{name} {step}": work for step, work in steps.items()}
    progress("steps")
    step_times = alternate(parts, rounds)
    images = len(ours) * settings.batch
    results = []
    for name in loaders:
        ratios = [other / own for other, own in zip(seconds[name], seconds[OURS], strict=True)]
        per_image = {
            step: statistics.median(step_times[f"{name} {step}"]) / settings.batch
            for step in ("decode", "augment", "collate")
        }
        results.append(
            DataResult(
                name,
                images,
                settings.workers,
                settings.batch,
                settings.img_size,
                images_per_sec=images / statistics.median(seconds[name]),
                ratio=statistics.median(ratios),
                **per_image,
            )
        )
    return results


def timm_loader(settings: DataSettings, use_prefetcher: bool) -> Any:
    """timm's own data set and loader for the training of the same configuration."""
    config = settings.config()
    return create_loader(
        create_dataset("", root=str(settings.root / "train")),
        (3, config.img_size, config.img_size),
        settings.batch,
        is_training=True,
        **training_options(config),
        num_workers=config.num_workers,
        device=torch.device("cpu"),
        use_prefetcher=use_prefetcher,
    )


def write_pictures(root: Path, number: int) -> None:
    """ROOT/train/CLASS/IMAGE.jpg: parts of scikit-learn's two photographs, 256 to 500 pixels."""
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    rng = np.random.default_rng(derive_seed(0, "pictures"))
    for index in range(number):
        label = index % len(photographs)
        photograph = photographs[label]
        width, height = (int(rng.integers(256, min(500, side) + 1)) for side in photograph.size)
        left = int(rng.integers(photograph.width - width + 1))
        top = int(rng.integers(photograph.height - height + 1))
        folder = root / "train" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        part = photograph.crop((left, top, left + width, top + height))
        part.save(folder / f"{index:06d}.jpg", quality=90)


def _epoch(loader: Any) -> Work:
    def run() -> None:
        for batch in loader:
            del batch

    return run


def _our_steps(loader: Any, settings: DataSettings) -> dict[str, Work]:
    dataset: ImageDataset = loader.dataset

    def decode() -> list[tuple[Image.Image, int]]:
        return [read_image(dataset.reader, i, dataset.mode) for i in range(settings.batch)]

    read = decode()

    def augment() -> list[Sample]:
        samples = []
        with preserved():
            for index, (image, target) in enumerate(read):
                samples.append(Sample(dataset.augment(image, Draw(0, index)), target, index, 0))
        return samples

    samples = augment()
    return {
        "decode": decode,
        "augment": augment,
        "collate": lambda: loader.collate_fn(samples),
    }


def _timm_steps(loader: Any, settings: DataSettings) -> dict[str, Work]:
    dataset = loader.dataset
    transform = dataset.transform

    def decode() -> list[tuple[Image.Image, int]]:
        dataset.transform = None
        try:
            return [dataset[index] for index in range(settings.batch)]
        finally:
            dataset.transform = transform

    read = decode()

    def augment() -> list[tuple[Any, int]]:
        with preserved():
            return [(transform(image), target) for image, target in read]

    samples = augment()

    def collate() -> None:
        if not hasattr(loader, "loader"):
            loader.collate_fn(samples)
            return
        images, _ = loader.loader.collate_fn(samples)
        images = images.to(loader.img_dtype).sub_(loader.mean).div_(loader.std)
        loader.random_erasing(images)

    return {"decode": decode, "augment": augment, "collate": collate}
