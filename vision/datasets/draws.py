"""Random numbers that a task needs for each image, drawn where the image is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from vision.datasets.dataset import Sample
from vision.datasets.sampler import Draw

# (index of an image in its split, epoch; None: evaluation) to tensors of the same shapes for each.
# A function of its arguments alone, so that it matters neither which process calls it nor how a
# batch is divided between devices; sent to the loader's workers.
RandomDraws = Callable[[int, int | None], tuple[Tensor, ...]]


@dataclass(eq=False)
class WithDraws(Dataset[Sample]):
    """Samples of another data set, each with the numbers that `draws` gives for it."""

    dataset: Any  # yields `Sample`s
    draws: RandomDraws
    training: bool

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Sample:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Sample]:
        """A batch; an image that took another's place has numbers of its own."""
        samples: list[Sample] = self.dataset.__getitems__(draws)
        return [
            sample._replace(draws=self.draws(sample.index, draw.epoch if self.training else None))
            for sample, draw in zip(samples, draws, strict=True)
        ]


def with_draws(
    dataset: Dataset[Sample], draws: RandomDraws | None, training: bool
) -> Dataset[Sample]:
    """`dataset` with the numbers of `draws`, if there are any to draw."""
    return dataset if draws is None else WithDraws(dataset, draws, training)
