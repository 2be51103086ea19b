"""timm's training and evaluation transforms, from a `DataConfig`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment, create_transform
from timm.data.transforms import MaybeToTensor
from torch import Tensor
from torchvision.transforms import Normalize

from vision.config.schema import DataConfig

Transform = Callable[[Image.Image], Tensor]


def train_transform(config: DataConfig) -> Transform:
    """Random crop, flip, colour, erasing: PIL image to normalized float32 [C, H, W].

    Draws from the global generators of random, numpy and torch. Raises ValueError where timm
    does not know `data.augment.auto_augment`.
    """
    try:
        transform = create_transform(
            (config.in_chans, config.img_size, config.img_size),
            is_training=True,
            **training_options(config),
        )
    except (AssertionError, KeyError, ValueError, IndexError) as error:
        # the other arguments were checked when the configuration was loaded
        raise ValueError(
            f"data.augment.auto_augment = {config.augment.auto_augment!r}: timm cannot read it "
            f"({error}); "
            "expected e.g. rand-m9-mstd0.5-inc1, augmix-m3-w3, original, v0, 3a, or null"
        ) from error
    mend_posterize(transform)
    return _normalize_at_once(transform)


def training_options(config: DataConfig) -> dict[str, Any]:
    """`config.augment`, interpolation and normalization as timm's functions take them."""
    augment = config.augment
    return {
        "scale": (augment.scale[0], augment.scale[1]),
        "ratio": (augment.ratio[0], augment.ratio[1]),
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
    # as timm does where it cannot draw one: "random" stands for bilinear or bicubic
    interpolation = "bilinear" if config.interpolation == "random" else config.interpolation
    transform = create_transform(
        (config.in_chans, config.img_size, config.img_size),
        is_training=False,
        crop_pct=config.crop_pct,
        interpolation=interpolation,
        mean=tuple(config.mean),
        std=tuple(config.std),
    )
    return _normalize_at_once(transform)


class ToNormalized:
    """PIL image of 8 bits per channel to normalized float32 [C, H, W].

    The bits are those of torchvision's ToTensor and then `normalize`, which computed the table;
    looking each pixel up takes half of their time, and less memory.
    """

    def __init__(self, normalize: Normalize) -> None:
        channels = len(normalize.mean)
        values = (torch.arange(256, dtype=torch.float32) / 255).expand(channels, 1, 256)
        self.table = normalize(values.clone())[:, 0]  # [C, 256]

    def __call__(self, image: Image.Image) -> Tensor:
        result = torch.empty(len(self.table), image.height * image.width)
        for row, table, channel in zip(result, self.table, image.split(), strict=True):
            values = torch.from_numpy(np.array(channel)).view(-1).int()
            torch.index_select(table, 0, values, out=row)
        return result.view(-1, image.height, image.width)


def mend_posterize(transform: Transform) -> None:
    """Put `posterize` where `transform` has timm's."""
    for operation in _operations(transform):
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize


def posterize(image: Image.Image, bits_to_keep: int, **kwargs: object) -> Image.Image:
    """timm's posterize, black for 0 bits: newer Pillow raises there, and the usual recipes
    (rand-m9-mstd0.5-inc1) reach 0 in one image of several hundred."""
    if bits_to_keep <= 0:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits_to_keep, **kwargs)


def _normalize_at_once(transform: Any) -> Transform:
    """`transform` with one step in the place of timm's two that end in a normalized tensor."""
    steps = transform.transforms
    at = next(i for i, step in enumerate(steps) if isinstance(step, Normalize))
    assert isinstance(steps[at - 1], MaybeToTensor)
    steps[at - 1 : at + 1] = [ToNormalized(steps[at])]
    return transform


def _operations(transform: Transform) -> Iterator[auto_augment.AugmentOp]:
    for step in getattr(transform, "transforms", []):
        yield from getattr(step, "ops", [])  # RandAugment, AugMix
        for policy in getattr(step, "policy", []):  # AutoAugment
            yield from policy
