"""Many images from a pipeline, each a function of its own number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vision.config.schema import EvaluationConfig
from vision.seeding import generator_for

if TYPE_CHECKING:
    from vision.diffusion.pipeline import DiTPipeline

_DEFAULTS = EvaluationConfig()


@dataclass(frozen=True)
class Sampling:
    """How images are sampled; by default as for published FIDs, without guidance.

    `sampler` and `ema` choose the scheduler and the weights of a pipeline when it is made (None: as
    `load_pipeline` does); the guidance settings are those of `DiTPipeline.__call__`.
    """

    sampler: str | None = None
    num_inference_steps: int = _DEFAULTS.num_inference_steps
    guidance_scale: float = _DEFAULTS.guidance_scale  # 1: no guidance
    guidance_channels: int | None = None
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    ema: bool = True


def check_sampling(pipeline: DiTPipeline, sampling: Sampling) -> None:
    """Raise ValueError for what `pipeline` cannot be sampled with."""
    pipeline.check_sampling(
        sampling.num_inference_steps,
        sampling.guidance_scale,
        sampling.guidance_channels,
        sampling.guidance_interval,
    )


def generate(
    pipeline: DiTPipeline,
    labels: Sequence[int],
    indices: Sequence[int],
    sampling: Sampling,
    batch_size: int,
) -> Iterator[Tensor]:
    """Batches of images, uint8 [B, 1 or 3, H, W] on the CPU, in the order given.

    Image `indices[k]`, of class `labels[k]`, draws its noise from (seed, index). The other images
    of a batch change it only by rounding, in the products of the whole batch. The transformer
    samples in eval mode, and is in its own mode whenever a batch is returned. Raises
    FloatingPointError where an image is not finite.
    """
    pipeline.set_progress_bar_config(disable=True)
    training = pipeline.transformer.training
    for start in range(0, len(indices), batch_size):
        generators = [
            generator_for(sampling.seed, "sample", index)
            for index in indices[start : start + batch_size]
        ]
        pipeline.transformer.eval()
        try:
            (images,) = pipeline(
                class_labels=list(labels[start : start + batch_size]),
                generator=generators,
                guidance_scale=sampling.guidance_scale,
                num_inference_steps=sampling.num_inference_steps,
                guidance_channels=sampling.guidance_channels,
                guidance_interval=sampling.guidance_interval,
                output_type="pt",
                return_dict=False,
            )
        finally:
            pipeline.transformer.train(training)
        yield images.float().mul(255).round().clamp(0, 255).to(torch.uint8).cpu()
