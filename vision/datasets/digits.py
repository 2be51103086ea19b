"""scikit-learn's handwritten digits: a data set that every machine has."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from vision.datasets.reader import Reader
from vision.datasets.splits import canonical


class DigitsReader(Reader):
    """One split of the 1797 grey 8x8 images; values 0..16 are scaled to 0..255.

    The split is the same for every run, whatever its seed: scikit-learn's `train_test_split`,
    stratified by class, random_state 0, takes 360 images for test and then 180 of the rest for
    validation; 1257 remain for training. Within a split images keep the order of the source.
    """

    def __init__(self, split: str) -> None:
        digits = load_digits()
        parts = {}
        parts["train"] = np.arange(len(digits.target))
        for name, size in (("test", 360), ("validation", 180)):
            parts["train"], parts[name] = train_test_split(
                parts["train"],
                test_size=size,
                stratify=digits.target[parts["train"]],
                random_state=0,
            )
        self.source_indices = np.sort(parts[canonical(split)])
        pixels = np.rint(digits.images[self.source_indices] * 255 / 16)
        self.images = pixels.astype(np.uint8)  # [N, 8, 8]
        self.labels: list[int] = digits.target[self.source_indices].tolist()
        self.class_names = [str(name) for name in digits.target_names]
        self.image_size = (8, 8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """(grey image, class)."""
        return Image.fromarray(self.images[index]), self.labels[index]

    def filename(self, index: int) -> str:
        """Where the image is in scikit-learn's data."""
        return f"load_digits().images[{self.source_indices[index]}]"
