"""What a feature extractor is, and how images get its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from vision.metrics.base import Output


@dataclass(frozen=True)
class Features:
    """Features of a batch: `pooled` [B, D]; `logits` [B, C]; `spatial` [B, S]."""

    pooled: Tensor
    logits: Tensor | None = None
    spatial: Tensor | None = None


@dataclass(frozen=True)
class Extractor:
    """uint8 images [B, 3, H, W] of any size to features; float32 out.

    `settings` holds all that changes the features: values are comparable only where all of them are
    equal. `published` is false for weights other than those of published values.
    """

    name: str
    model: nn.Module
    extract: Callable[[Tensor, bool], Features]  # (images, whether spatial features are wanted)
    settings: dict[str, Any] = field(default_factory=dict)
    published: bool = True

    @property
    def is_fid_inception(self) -> bool:
        """Whether the metrics may have the names that are the FID Inception's: FID, KID, ..."""
        return self.name == "inception"

    def label(self, output: Output) -> str:
        """What to call a number of a metric in tables: FID, or FD[NAME] with other extractors."""
        if self.is_fid_inception:
            return output.label
        return f"{output.other or output.label}[{self.name}]"

    @torch.inference_mode()
    def __call__(self, images: Tensor, spatial: bool = False) -> Features:
        """Features of one batch, computed where the model is."""
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        return self.extract(images.to(device), spatial)


def resize_images(images: Tensor, size: int, resize: str, mode: str = "bicubic") -> Tensor:
    """uint8 [B, C, H, W] to float32 of `size` x `size`, values 0 to 255.

    `legacy`: the bilinear sampling of TensorFlow 1, without antialiasing, that published FIDs are
    made with. `antialias`: `mode` with antialiasing, rounded to 8 bits as in a saved image
    (https://arxiv.org/abs/2104.11222).
    """
    if images.shape[-2:] == (size, size):
        return images.float()
    if resize == "legacy":
        return interpolate_bilinear_2d_like_tensorflow1x(
            images.float(), size=(size, size), align_corners=False
        )
    scaled = F.interpolate(images.float(), (size, size), mode=mode, antialias=True)
    return scaled.round().clamp(0, 255)
