"""Images as PNG files, alone or in grids. What is not finite is never written."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from vision.files import written

_SMALLEST = 32  # pixels per image of a grid, so that a person can see the image


def enlarge(images: Tensor, least: int) -> Tensor:
    """Images [..., H, W] with each pixel repeated until the width is at least `least`."""
    factor = max(1, -(-least // images.shape[-1]))
    return images.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def check_finite(images: Tensor) -> None:
    """Raise FloatingPointError unless all of [B, C, H, W], or [C, H, W], is finite."""
    finite = torch.isfinite(images).flatten(1).all(1)
    if not finite.all():
        what = "images" if images.ndim == 4 else "channels of an image"
        raise FloatingPointError(
            f"{int((~finite).sum())} of {len(finite)} {what} are not finite and are not written: "
            "the weights, or what they are asked for, lead out of the range of numbers"
        )


def write_png(image: Tensor, path: Path) -> None:
    """Write [1 or 3, H, W], uint8 or floating from 0 to 1. Raises FloatingPointError."""
    if image.is_floating_point():
        check_finite(image)
        image = image.mul(255).add(0.5).clamp(0, 255).to(torch.uint8)
    with written(path) as temporary:
        to_pil_image(image.cpu()).save(temporary, format="png")


def image_grid(images: Tensor, columns: int) -> Tensor:
    """uint8 images [N, 1 or 3, H, W] side by side as [3, H, W] from 0 to 1; small ones enlarged."""
    large = enlarge(images, _SMALLEST).float() / 255
    return make_grid(large, nrow=columns, pad_value=1.0)
