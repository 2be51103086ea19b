"""Common corruptions of images at five severities, made on the fly.

After Hendrycks & Dietterich 2019, https://arxiv.org/abs/1903.12261, with torchvision's operations
and the paper's severities for 224 x 224 pixels; lengths in pixels are scaled to the image size.
These are not the files of ImageNet-C: compare only numbers that come from this module.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as V

from vision.seeding import generator_for

SEVERITIES = (1, 2, 3, 4, 5)
_REFERENCE_SIZE = 224

# one image [C, H, W] from 0 to 1, the parameter of its severity, random numbers
_Operation = Callable[[Tensor, float, torch.Generator], Tensor]


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(image.shape, generator=generator)


def _impulse_noise(image: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(image.shape, generator=generator)
    with_black = torch.where(draw < fraction / 2, torch.zeros_like(image), image)
    return torch.where(draw > 1 - fraction / 2, torch.ones_like(image), with_black)


def _gaussian_blur(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    # a blur narrower than 0.4 pixels has no effect: small images get at least that
    sigma = sigma * max(image.shape[-1] / _REFERENCE_SIZE, 0.4)
    largest = (min(image.shape[-2:]) - 1) * 2 - 1  # padding by reflection needs that many pixels
    size = min(2 * max(1, round(4 * sigma)) + 1, largest)
    return V.gaussian_blur(image, [size, size], [sigma, sigma])


def _motion_blur(image: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Mean over positions along a line at a random angle of up to 45 degrees."""
    length = length * image.shape[-1] / _REFERENCE_SIZE
    angle = torch.deg2rad(torch.rand((), generator=generator) * 90 - 45)
    steps = torch.linspace(-0.5, 0.5, 9) * length
    theta = torch.eye(2, 3).repeat(len(steps), 1, 1)
    theta[:, 0, 2] = 2 * steps * angle.cos() / image.shape[-1]
    theta[:, 1, 2] = 2 * steps * angle.sin() / image.shape[-2]
    return _warp(image, theta).mean(0)


def _zoom_blur(image: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    theta = torch.eye(2, 3) / torch.linspace(1, largest, 9)[:, None, None]
    return _warp(image, theta).mean(0)


def _contrast(image: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    mean = image.mean((-2, -1), keepdim=True)
    return (image - mean) * factor + mean


def _elastic(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    field = torch.rand((1, 2, 5, 5), generator=generator) * 2 - 1  # few points: smooth
    field = F.interpolate(field, image.shape[-2:], mode="bicubic", align_corners=True)
    return V.elastic(image, field.permute(0, 2, 3, 1) * strength)


def _pixelate(image: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    size = [max(1, round(side * fraction)) for side in image.shape[-2:]]
    small = F.interpolate(image[None], size, mode="area")
    return F.interpolate(small, image.shape[-2:], mode="nearest")[0]


def _jpeg(image: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    rgb = to_bytes(image).expand(3, -1, -1)  # torchvision's encoder takes 1 or 3 channels
    return V.jpeg(rgb, round(quality))[: len(image)].float() / 255


_OPERATIONS: dict[str, tuple[_Operation, tuple[float, ...]]] = {
    "gaussian_noise": (lambda x, std, g: x + std * _noise(x, g), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": (lambda x, count, g: torch.poisson(x * count, g) / count, (60, 25, 12, 5, 3)),
    "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
    "speckle_noise": (lambda x, std, g: x + x * std * _noise(x, g), (0.15, 0.2, 0.35, 0.45, 0.6)),
    "gaussian_blur": (_gaussian_blur, (1, 2, 3, 4, 6)),
    "motion_blur": (_motion_blur, (10, 15, 20, 30, 40)),
    "zoom_blur": (_zoom_blur, (1.11, 1.16, 1.21, 1.26, 1.31)),
    "brightness": (lambda x, added, g: x + added, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic": (_elastic, (0.02, 0.04, 0.06, 0.08, 0.1)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
}  # fmt: skip
CORRUPTIONS = tuple(_OPERATIONS)


def corruption_names(text: str | None) -> tuple[str, ...]:
    """Names separated by commas, or `all`; None means none. Raises ValueError for unknown names."""
    if text is None:
        return ()
    names = CORRUPTIONS if text == "all" else tuple(text.split(","))
    unknown = [name for name in names if name not in _OPERATIONS]
    if unknown:
        raise ValueError(
            f"corruptions = {unknown[0]!r}: expected all, or some of {', '.join(CORRUPTIONS)}"
        )
    return names


def corrupt(image: Tensor, name: str, severity: int, seed: int, index: int) -> Tensor:
    """One image [C, H, W] float32 from 0 to 1, corrupted and rounded to 8 bits as a file would be.

    `name` is one of `CORRUPTIONS`, `severity` one of `SEVERITIES`. Random numbers depend on
    (seed, name, severity, index) only.
    """
    operation, levels = _OPERATIONS[name]
    generator = generator_for(seed, name, severity, index)
    return to_bytes(operation(image, levels[severity - 1], generator)).float() / 255


def to_bytes(image: Tensor) -> Tensor:
    """Values from 0 to 1 (others clipped) as uint8."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


def _warp(image: Tensor, theta: Tensor) -> Tensor:
    """`image` under each of the affine maps [N, 2, 3]: [N, C, H, W]."""
    grid = F.affine_grid(theta, [len(theta), *image.shape], align_corners=False)
    images = image.expand(len(theta), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
