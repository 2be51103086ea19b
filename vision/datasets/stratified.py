"""Data sets that are in memory as a whole and come without splits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vision.datasets.reader import Reader
from vision.datasets.splits import canonical

Parts = Mapping[str, NDArray[np.integer]]  # the indices of each split


def stratify(labels: NDArray[np.integer], test: int, validation: int, seed: int) -> Parts:
    """Which images are for train, validation and test, stratified by class.

    scikit-learn's `train_test_split` takes the images for test and then those for validation; the
    rest is for training.

    Args:
        labels: [N].
        test: Images in the test split.
        validation: Images in the validation split.
        seed: Of the choice.
    """
    from sklearn.model_selection import train_test_split  # takes long to import

    parts = {"train": np.arange(len(labels))}
    for name, size in (("test", test), ("validation", validation)):
        parts["train"], parts[name] = train_test_split(
            parts["train"], test_size=size, stratify=labels[parts["train"]], random_state=seed
        )
    return parts


class StratifiedReader(Reader):
    """One split of grey images whose classes are 0 to K - 1, in the order of the source."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer],
        parts: Parts,
        split: str,
        source: str,
    ) -> None:
        """Choose the images of `split`.

        Args:
            images: [N, H, W].
            labels: [N].
            parts: The indices of train, validation and test.
            split: train, validation, test or a synonym.
            source: What is indexed for an image, for messages.
        """
        self.source_indices = np.sort(parts[canonical(split)])
        self.images = images[self.source_indices]
        self.labels: list[int] = labels[self.source_indices].tolist()
        self.class_names = [str(label) for label in np.unique(labels)]
        self.image_size = images.shape[1:]
        self._source = source

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """(grey image, class)."""
        return Image.fromarray(self.images[index]), self.labels[index]

    def filename(self, index: int) -> str:
        """Where the image is in the source."""
        return f"{self._source}[{self.source_indices[index]}]"
