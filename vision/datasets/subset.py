"""Readers around readers: a share of the images, the same number of each class; other labels."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import IO

from PIL import Image

from vision.datasets.readers import Reader
from vision.seeding import derive_seed


class SubsetReader:
    """The images `indices` of a reader, in that order."""

    def __init__(self, reader: Reader, indices: Sequence[int]) -> None:
        self._reader = reader
        self._indices = list(indices)
        self.class_names: list[str] | None = reader.class_names
        labels = reader.labels
        self.labels = None if labels is None else [labels[i] for i in self._indices]
        size = getattr(reader, "image_size", None)
        if size is not None:
            self.image_size = size

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[IO[bytes] | Image.Image, int]:
        """(image, class)."""
        return self._reader[self._indices[index]]

    def filename(self, index: int) -> str:
        """Place of the image."""
        return self._reader.filename(self._indices[index])


class RelabelledReader:
    """A reader whose classes are renumbered: a split may lack classes that training has."""

    def __init__(self, reader: Reader, class_names: list[str]) -> None:
        self._reader = reader
        number = {name: i for i, name in enumerate(class_names)}
        self._numbers = [number[name] for name in reader.class_names or []]
        self.class_names: list[str] | None = class_names
        sizes = getattr(reader, "shard_sizes", None)
        if sizes is not None:
            self.shard_sizes = sizes
        self.labels = None
        if reader.labels is not None:
            self.labels = [self._numbers[label] for label in reader.labels]

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[IO[bytes] | Image.Image, int]:
        """(image, class by the numbers of the train split)."""
        image, label = self._reader[index]
        return image, self._numbers[label]

    def filename(self, index: int) -> str:
        """Place of the image."""
        return self._reader.filename(index)


def choose_fraction(reader: Reader, fraction: float, seed: int) -> list[int]:
    """Indices of `fraction` of the images, ascending; which ones follows from `seed` alone.

    The same number from each class (up to classes with fewer images), at least one: the share of
    the mean class, rounded down. Without known labels any images are taken.
    """
    draw = random.Random(derive_seed(seed, "train_fraction"))
    if reader.labels is None:
        count = max(int(len(reader) * fraction), 1)
        return sorted(draw.sample(range(len(reader)), count))
    members: dict[int, list[int]] = defaultdict(list)
    for index, label in enumerate(reader.labels):
        members[label].append(index)
    count = max(int(len(reader) * fraction / len(members)), 1)
    chosen = [draw.sample(members[k], min(count, len(members[k]))) for k in sorted(members)]
    return sorted(index for indices in chosen for index in indices)
