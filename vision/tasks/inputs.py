"""What a model is called with, on the device and in the dtype that it needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vision.datasets.dataset import Batch
from vision.datasets.draws import RandomDraws


def as_input(images: Tensor, model: nn.Module) -> Tensor:
    """`images` in the dtype of the model's weights: an average may have another than the model."""
    return images.to(next(model.parameters()).dtype)


def draws_of(batch: Batch, draws: RandomDraws, epoch: int | None) -> Sequence[Tensor]:
    """`draws` for the images of a batch, on their device, each [B, ...].

    Batches of the run's own loaders bring them; for others they are made here.
    """
    if batch.draws:
        return batch.draws
    each = [draws(index, epoch) for index in batch.indices.tolist()]
    stacked = (torch.stack(values) for values in zip(*each, strict=True))
    return [values.to(batch.images.device) for values in stacked]
