"""Random draws of encoded latents, where `ImageDataset` has decoded and augmented images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from vision.datasets.dataset import Sample
from vision.datasets.sampler import Draw
from vision.seeding import derive_seed


class LatentDataset(Dataset[Sample]):
    """Draws of latents, [C, h, w] float32: mean + std * noise of the image or its mirror image.

    `reader` is a `LatentReader`, perhaps behind one that changes its labels. Noise and flip follow
    from (seed, epoch, index). `hflip` is the probability of the mirror image.
    """

    def __init__(self, reader: Any, seed: int, hflip: float) -> None:
        self.reader = reader
        self.seed = seed
        self.hflip = hflip

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, draw: Draw) -> Sample:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Sample]:
        """A batch."""
        return [self._load(draw) for draw in draws]

    def _load(self, draw: Draw) -> Sample:
        (means, stds), label = self.reader[draw.index]
        key = derive_seed(self.seed, "latent", draw.epoch, draw.index)
        generator = torch.Generator().manual_seed(key)
        flip = int(torch.rand((), generator=generator) < self.hflip)
        mean, std = means[flip].float(), stds[flip].float()
        noise = torch.randn(mean.shape, generator=generator)
        return Sample(mean + std * noise, label, draw.index, 0)
