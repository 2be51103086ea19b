"""timm's training and evaluation transforms, from a `DataConfig`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import Compose
from torchvision.transforms.functional import normalize

from vision.config.schema import DataConfig

Transform = Callable[[Image.Image], Tensor]


def train_transform(config: DataConfig) -> Transform:
    """Random crop, flip, colour, erasing: PIL image to normalized float32 [C, H, W].

    Draws from the global generators of random, numpy and torch. Raises ValueError where timm
    does not know `data.augment.auto_augment`.
    """
    augment = config.augment
    size = (config.in_chans, config.img_size, config.img_size)
    try:
        to_bytes = create_transform(
            size, is_training=True, normalize=False, **training_options(config)
        )
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        # the other arguments were checked when the configuration was loaded
        raise ValueError(
            f"data.augment.auto_augment = {augment.auto_augment!r}: timm cannot read it "
            f"({error}); "
            "expected e.g. rand-m9-mstd0.5-inc1, augmix-m3-w3, original, v0, 3a, or null"
        ) from error
    erasing = RandomErasing(
        augment.re_prob, mode=augment.re_mode, max_count=augment.re_count, device="cpu"
    )
    return Compose([to_bytes, Normalized(config), erasing])


def training_options(config: DataConfig) -> dict[str, Any]:
    """`config.augment`, interpolation and normalization as timm's functions take them."""
    augment = config.augment
    return {
        "scale": tuple(augment.scale),
        "ratio": tuple(augment.ratio),
        "hflip": augment.hflip,
        "color_jitter": augment.color_jitter,
        "auto_augment": augment.auto_augment,
        "interpolation": config.interpolation,
        "mean": tuple(config.mean),
        "std": tuple(config.std),
        "re_prob": augment.re_prob,
        "re_mode": augment.re_mode,
        "re_count": augment.re_count,
    }


def eval_transform(config: DataConfig) -> Transform:
    """Resize and centre crop: PIL image to normalized float32 [C, H, W]."""
    return Compose([eval_pixels(config), Normalized(config)])


def eval_pixels(config: DataConfig) -> Transform:
    """Resize and centre crop: PIL image to uint8 [C, H, W]."""
    # as timm does where it cannot draw one: "random" means bilinear or bicubic
    interpolation = "bilinear" if config.interpolation == "random" else config.interpolation
    return create_transform(
        (config.in_chans, config.img_size, config.img_size),
        crop_pct=config.crop_pct,
        interpolation=interpolation,
        normalize=False,
    )


class Normalized:
    """uint8 [C, H, W] to (x / 255 - mean) / std, float32.

    Looks each value up in a table of 256. The bits are those of torchvision's ToTensor and
    Normalize, in less time and memory.
    """

    def __init__(self, config: DataConfig) -> None:
        values = (torch.arange(256, dtype=torch.float32) / 255).expand(config.in_chans, 1, 256)
        self.table = normalize(values, config.mean, config.std)[:, 0]  # [C, 256]

    def __call__(self, image: Tensor) -> Tensor:
        return self.table.gather(1, image.flatten(1).long()).view(image.shape)


def posterize(image: Image.Image, bits_to_keep: int, **kwargs: object) -> Image.Image:
    """timm's posterize, but black for 0 bits, which Pillow refuses.

    Usual recipes (rand-m9-mstd0.5-inc1) ask for 0 bits in one of several hundred images. Tried
    with timm 1.0.31 and Pillow 13.0; a test fails when timm no longer asks Pillow for 0 bits.
    """
    if bits_to_keep <= 0:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits_to_keep, **kwargs)


for _name in ("Posterize", "PosterizeIncreasing", "PosterizeOriginal"):
    auto_augment.NAME_TO_OP[_name] = posterize  # timm's table of operations, by the recipe's names
