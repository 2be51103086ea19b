"""Images per second of our loader and of timm's (timm.data.create_loader), by the same transforms.

One round is an epoch of each loader, in an order that turns; a first one, in which workers start,
does not count. "ours / it" is the median over rounds of our images/s divided by its own: 1 and more
means that ours is as fast. timm's workers send normalized floats ("no prefetcher", as ours do) or
bytes that are normalized where the model is ("prefetcher", its default; here that is the CPU).
Decoding, augmentation and collating are timed apart, per image, in one process.

Without --root images are cut out of scikit-learn's two photographs: JPEG, 256 to 500 pixels.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_dataset, create_loader

from vision.benchmark import command_line
from vision.benchmark.command_line import report
from vision.benchmark.timing import Work, alternate
from vision.config.schema import AugmentConfig, DataConfig
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import ImageDataset, Sample
from vision.datasets.reader import read_image
from vision.datasets.sampler import Draw
from vision.datasets.transforms import training_options
from vision.seeding import derive_seed, preserved

OURS = "ours"
TIMM = "timm, no prefetcher"  # its workers normalize, as ours do
PREFETCHER = "timm, prefetcher"  # its default: uint8 from the workers, normalized where it trains


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


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    command_line.add_arguments(parser, batch=64, rounds=5, device=False)
    add = parser.add_argument
    add("--root", type=Path, metavar="DIR", help="images of your own: DIR/train/CLASS/IMAGE")
    add("--images", type=int, default=1024, help="how many to make without --root")
    add("--workers", type=int, default=2, help="loader processes; 0: none")
    add("--img-size", type=int, default=224, help="pixels that the model gets")
    add(
        "--auto-augment",
        default="rand-m9-mstd0.5-inc1",
        metavar="NAME",
        help="a policy by timm's name; none: crop, flip and colours alone (default: %(default)s)",
    )


def run(arguments: Namespace) -> None:
    """Measure, print and write the results."""
    batch, policy = arguments.batch, arguments.auto_augment
    with TemporaryDirectory() as folder:
        root = arguments.root or Path(folder)
        if arguments.root is None:
            write_pictures(root, arguments.images)
        config = data_config(
            root, arguments.workers, arguments.img_size, None if policy == "none" else policy
        )
        results = benchmark_data(config, batch, arguments.rounds)
    title = f"{config.num_workers} workers, batch {batch}, {config.img_size} pixels"
    columns: dict[str, Callable[[DataResult], str]] = {
        title: lambda r: r.loader,
        "images/s": lambda r: f"{r.images_per_sec:.0f}",
        "ours / it": lambda r: f"{r.ratio:.3f}",
        "decode ms": lambda r: f"{r.decode * 1e3:.2f}",
        "augment ms": lambda r: f"{r.augment * 1e3:.2f}",
        "collate ms": lambda r: f"{r.collate * 1e3:.2f}",
    }
    report(results, columns, arguments.json)


def data_config(root: Path, workers: int, img_size: int, policy: str | None) -> DataConfig:
    """ROOT/train/CLASS/IMAGE, augmented as the ImageNet recipe does, by `policy` of timm's."""
    augment = AugmentConfig(auto_augment=policy, color_jitter=0.4, re_prob=0.25)
    return DataConfig(
        name="folder",
        root=str(root),
        val_split="train",
        img_size=img_size,
        augment=augment,
        num_workers=workers,
    )


def benchmark_data(config: DataConfig, batch: int, rounds: int) -> list[DataResult]:
    """Time `rounds` epochs of each loader in turn, and then each one's steps on a batch.

    Raises ValueError or FileNotFoundError where there are no images, or not one batch of them.
    """
    ours = ImageDataModule(config, seed=0, batch_size_total=batch).train_dataloader()
    loaders: dict[str, Any] = {
        OURS: ours,
        TIMM: timm_loader(config, batch, use_prefetcher=False),
        PREFETCHER: timm_loader(config, batch, use_prefetcher=True),
    }
    # a deque of length 0 reads a whole epoch and keeps nothing
    epochs: dict[str, Work] = {name: partial(deque, it, 0) for name, it in loaders.items()}
    seconds = alternate(epochs, rounds)
    parts: dict[str, Work] = {}
    for name, loader in loaders.items():
        steps = _our_steps(loader, batch) if loader is ours else _timm_steps(loader, batch)
        parts |= {f"{name} {step}": work for step, work in steps.items()}
    step_times = alternate(parts, rounds)
    images = len(ours) * batch
    results = []
    for name in loaders:
        ratios = [other / own for other, own in zip(seconds[name], seconds[OURS], strict=True)]
        decode, augment, collate = (
            median(step_times[f"{name} {step}"]) / batch
            for step in ("decode", "augment", "collate")
        )
        rates = images / median(seconds[name]), median(ratios)
        setting = images, config.num_workers, batch, config.img_size
        results.append(DataResult(name, *setting, *rates, decode, augment, collate))
    return results


def timm_loader(config: DataConfig, batch: int, use_prefetcher: bool) -> Any:
    """timm's own data set and loader for the training of the same configuration."""
    return create_loader(
        create_dataset("", root=str(Path(config.root or "") / "train")),
        (3, config.img_size, config.img_size),
        batch,
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


def _our_steps(loader: Any, batch: int) -> dict[str, Work]:
    dataset: ImageDataset = loader.dataset

    def augment(read: list[Any]) -> list[Sample]:
        return [
            Sample(dataset.augment(image, Draw(0, index)), target, index, 0)
            for index, (image, target) in enumerate(read)
        ]

    def decode() -> list[Any]:
        return [read_image(dataset.reader, index, dataset.mode) for index in range(batch)]

    return _steps(decode, augment, loader.collate_fn)


def _timm_steps(loader: Any, batch: int) -> dict[str, Work]:
    dataset, transform = loader.dataset, loader.dataset.transform

    def decode() -> list[Any]:
        dataset.transform = None
        try:
            return [dataset[index] for index in range(batch)]
        finally:
            dataset.transform = transform

    def augment(read: list[Any]) -> list[Any]:
        return [(transform(image), target) for image, target in read]

    def collate(samples: list[Any]) -> None:
        if not hasattr(loader, "loader"):
            loader.collate_fn(samples)
            return
        images, _ = loader.loader.collate_fn(samples)  # as timm's PrefetchLoader does
        images = images.to(loader.img_dtype).sub_(loader.mean).div_(loader.std)
        loader.random_erasing(images)

    return _steps(decode, augment, collate)


def _steps(
    decode: Callable[[], list[Any]],
    augment: Callable[[list[Any]], list[Any]],
    collate: Callable[[list[Any]], object],
) -> dict[str, Work]:
    """Each on what the one before gives, prepared here."""

    def augment_read() -> list[Any]:
        with preserved():
            return augment(read)

    read = decode()
    samples = augment_read()
    return {"decode": decode, "augment": augment_read, "collate": partial(collate, samples)}
