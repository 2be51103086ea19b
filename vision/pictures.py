"""Grids of images as PNG files."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torchvision.utils import make_grid, save_image

from vision.files import written

_SMALLEST = 32  # pixels per image of a grid, so that a person can see the image


def enlarge(images: Tensor, least: int) -> Tensor:
    """Images [..., H, W] with each pixel repeated until the width is at least `least`."""
    factor = max(1, -(-least // images.shape[-1]))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def write_png(image: Tensor, path: Path) -> None:
    """Write [C, H, W] from 0 to 1."""
    with written(path) as temporary:
        save_image(image, temporary, format="png")


def image_grid(images: Tensor, columns: int) -> Tensor:
    """uint8 images [N, 1 or 3, H, W] side by side as [3, H, W] from 0 to 1; small ones enlarged."""
    large = enlarge(images, _SMALLEST).float() / 255
    return make_grid(large, nrow=columns, pad_value=1.0)
