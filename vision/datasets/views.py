"""Readers seen through another one: some of the images, or other class numbers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from vision.config.schema import DataConfig
from vision.datasets.reader import Item, Reader
from vision.datasets.splits import split_key
from vision.seeding import derive_seed


class ReaderView(Reader):
    """`reader` with only the images `indices`, in that order, or with the classes `class_names`.

    None keeps all images, or the classes. `class_names` has to include the reader's own: a split
    may lack classes that training has.
    """

    def __init__(
        self,
        reader: Reader,
        indices: Sequence[int] | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self._reader = reader
        self._indices = range(len(reader)) if indices is None else indices
        self.class_names = class_names or reader.class_names
        number = {name: i for i, name in enumerate(class_names or [])}
        self._numbers = [number[name] for name in reader.class_names or [] if class_names]
        labels = reader.labels
        self.labels = None if labels is None else [self._class(labels[i]) for i in self._indices]
        self.image_size = reader.image_size
        self.shard_sizes = reader.shard_sizes if indices is None else None

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Item:
        """(image, class by the numbers of this view)."""
        image, label = self._reader[self._indices[index]]
        return image, self._class(label)

    def filename(self, index: int) -> str:
        """Place of the image."""
        return self._reader.filename(self._indices[index])

    def _class(self, label: int) -> int:
        return self._numbers[label] if self._numbers else label


def choose_fraction(reader: Reader, fraction: float, seed: int) -> list[int]:
    """Indices of `fraction` of the images, ascending; which ones depends on `seed` only.

    Every class gives the same number: `fraction` of the mean class size, rounded down, at least
    one, and at most all that a class has. Without known labels any images are taken.
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


def with_classes(config: DataConfig, split: str, reader: Reader, names: list[str] | None) -> Reader:
    """`reader` with labels counted in `names`, the classes of training; ValueError for others."""
    if reader.class_names == names or reader.class_names is None or names is None:
        return reader
    unknown = [name for name in reader.class_names if name not in set(names)]
    if unknown:
        raise ValueError(
            f"{split_key(config, split)} = {split!r}: has classes that training "
            f"has not ({', '.join(unknown[:5])}{', ...' if len(unknown) > 5 else ''}); expected "
            "the same class folders or names in all splits"
        )
    return ReaderView(reader, class_names=names)
