"""How many images a training split has, without opening it."""

from __future__ import annotations

from typing import NamedTuple

from vision.config.schema import DataConfig


class Known(NamedTuple):
    """A data set by name: images of its training split, and classes."""

    title: str
    images: int
    classes: int


IMAGENET = Known("ImageNet-1k", 1_281_167, 1000)
_KNOWN = {
    "digits": Known("digits", 1_257, 10),
    "torch/cifar10": Known("CIFAR-10", 50_000, 10),
    "torch/cifar100": Known("CIFAR-100", 50_000, 100),
    "torch/mnist": Known("MNIST", 60_000, 10),
    "torch/kmnist": Known("KMNIST", 60_000, 10),
    "torch/fashion_mnist": Known("Fashion-MNIST", 60_000, 10),
    "torch/imagenet": IMAGENET,
}


def training_set(config: DataConfig, images: int | None = None) -> Known:
    """What `config` trains on; `images` (of the whole split) where the data set is not known.

    Folders and shards of 1,000 classes, and latents that do not say, are taken for
    ImageNet-1k. Raises ValueError for others without `images`.
    """
    found = _KNOWN.get(config.name)
    like_imagenet = config.num_classes == 1000 or (
        config.name == "latents" and config.num_classes is None
    )
    if found is None and like_imagenet:
        found = IMAGENET
    if found is None and (images is None or config.num_classes is None):
        raise ValueError(
            f"data.name = {config.name!r}: a plan opens no data and does not know how many images "
            "and classes it has; give --images NUMBER and data.num_classes=NUMBER"
        )
    title = found.title if found is not None and images is None else config.name
    count = images if images is not None else found.images if found is not None else 0
    classes = config.num_classes or (found.classes if found is not None else 0)
    return Known(title, int(count * config.train_fraction), classes)
