"""From draws to a batch of tensors: decode, augment, collate; and what broken images do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from vision.datasets.image_files import Mode
from vision.datasets.reader import Reader, read_image
from vision.datasets.sampler import Draw
from vision.datasets.transforms import Transform
from vision.errors import CorruptImageError
from vision.seeding import preserved, seed_globals

_MAX_IN_A_ROW = 1000  # unreadable images before the whole data set counts as unreadable


class Sample(NamedTuple):
    """One image, or none (`image` is None) where it was left out."""

    image: Tensor | None  # [C, H, W]
    target: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    skipped: int  # unreadable images passed on the way to this one
    draws: tuple[Tensor, ...] = ()  # random numbers that the task needs for it


class Batch(NamedTuple):
    """Images and classes of one batch, and how many images could not be read."""

    images: Tensor  # [B, C, H, W] float32
    targets: Tensor  # [B] int64
    indices: Tensor  # [B] int64, position in the split
    skipped: Tensor  # [] int64
    draws: Sequence[Tensor] = ()  # [B, ...] each: the images' `Sample.draws`


@dataclass(eq=False)
class ImageDataset(Dataset[Sample]):
    """Decoded, augmented images. All random choices depend on (seed, epoch, index) only.

    With on_corrupt "stop" an unreadable image raises `CorruptImageError`. With "skip" it is
    replaced by the next readable one if `replace_corrupt` (training: batches stay full), else
    left out (evaluation). A data set without any readable image raises in both cases.
    """

    reader: Reader
    transform: Transform
    seed: int
    mode: Mode = "RGB"
    on_corrupt: Literal["stop", "skip"] = "stop"
    replace_corrupt: bool = False
    _any_readable: bool = field(default=False, init=False)

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, draw: Draw) -> Sample:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Sample]:
        """What the loader asks for: a batch, so that random states are saved once for it."""
        with preserved():  # timm's transforms draw from global generators
            return [self._load(draw) for draw in draws]

    def augment(self, image: Image.Image, draw: Draw) -> Tensor:
        """`image` transformed at random for this draw. Seeds the global generators."""
        seed_globals(self.seed, "image", draw.epoch, draw.index)
        return self.transform(image)

    def _load(self, draw: Draw) -> Sample:
        index, skipped = draw.index, 0
        try:
            image, target = read_image(self.reader, index, self.mode, draw.item)
        except CorruptImageError as error:
            if self.on_corrupt == "stop":
                raise
            if not self.replace_corrupt:
                if not self._any_readable:
                    self._next_readable(index, error)
                    self._any_readable = True
                return Sample(None, -1, index, 1)
            image, target, index, skipped = self._next_readable(index, error)
        self._any_readable = True
        return Sample(self.augment(image, draw), target, index, skipped)

    def _next_readable(
        self, index: int, error: CorruptImageError
    ) -> tuple[Image.Image, int, int, int]:
        """(image, class, its index, unreadable images before it)."""
        most = min(len(self), _MAX_IN_A_ROW)
        for skipped in range(1, most):
            other = (index + skipped) % len(self)
            try:
                return *read_image(self.reader, other, self.mode), other, skipped
            except CorruptImageError:
                continue
        first = str(error).partition("; remove it")[0].removeprefix("cannot read image ")
        raise CorruptImageError(
            f"cannot read any of {most} images in a row, the first is {first}; check data.root "
            "and the files"
        )


def collate(samples: Sequence[Sample], shape: tuple[int, int, int]) -> Batch:
    """Stack the readable images; `shape` [C, H, W] is that of a batch that lost all of them."""
    kept = [sample for sample in samples if sample.image is not None]
    # default_collate stacks into shared memory when it runs in a worker
    images = default_collate([s.image for s in kept]) if kept else torch.empty(0, *shape)
    return Batch(
        images=images,
        targets=torch.tensor([s.target for s in kept], dtype=torch.int64),
        indices=torch.tensor([s.index for s in kept], dtype=torch.int64),
        skipped=torch.tensor(sum(s.skipped for s in samples), dtype=torch.int64),
        draws=[default_collate(list(each)) for each in zip(*(s.draws for s in kept), strict=True)],
    )


class ResumableLoader(DataLoader[Sample]):
    """Yields `Batch`es and measures the time spent waiting for them.

    Lightning warns on resuming unless a loader has `state_dict` and `load_state_dict`; there is
    no state, because `GlobalBatchSampler` finds its place by itself.
    """

    waited = 0.0  # seconds, over all epochs

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to load."""
