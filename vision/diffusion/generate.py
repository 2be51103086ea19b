"""Many images from a pipeline, each a function of its own number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from vision.diffusion.pipeline import DiTPipeline
from vision.seeding import derive_seed


def generate(
    pipeline: DiTPipeline,
    labels: Sequence[int],
    indices: Sequence[int],
    seed: int,
    batch_size: int,
    guidance_scale: float = 1.0,
    num_inference_steps: int = 250,
    guidance_channels: int | None = None,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> Iterator[Tensor]:
    """Batches of images, uint8 [B, 1 or 3, H, W] on the CPU, in the order given.

    Image `indices[k]`, of class `labels[k]`, draws its noise from (seed, index): it does not depend
    on the images beside it, beyond the rounding of a batched product.
    """
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        generators = [
            torch.Generator().manual_seed(derive_seed(seed, "sample", index)) for index in chosen
        ]
        (images,) = pipeline(
            class_labels=list(labels[start : start + batch_size]),
            generator=generators,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            guidance_channels=guidance_channels,
            guidance_interval=guidance_interval,
            output_type="pt",
            return_dict=False,
        )
        yield to_uint8(images)


def to_uint8(images: Tensor) -> Tensor:
    """Values from 0 to 1 as rounded bytes, on the CPU."""
    return images.float().mul(255).round().clamp(0, 255).to(torch.uint8).cpu()
