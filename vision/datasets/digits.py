"""scikit-learn's handwritten digits as a reader: a data set that every machine has."""

from __future__ import annotations

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from vision.datasets.splits import canonical

_SIZES = {"train": 1257, "validation": 180, "test": 360}
_SPLIT_SEED = 0


class DigitsReader:
    """One split of the 1797 grey 8x8 images; values 0..16 are scaled to 0..255.

    The split is the same for every run, whatever its seed: scikit-learn's `train_test_split`,
    stratified by class, random_state 0, takes 360 images for test and then 180 of the rest for
    validation; 1257 remain for training. Within a split images keep the order of the source.
    """

    def __init__(self, split: str) -> None:
        self.split = canonical(split)
        digits = load_digits()
        indices = np.arange(len(digits.target))
        rest, test = _stratified(indices, digits.target, _SIZES["test"])
        train, validation = _stratified(rest, digits.target, _SIZES["validation"])
        chosen = {"train": train, "validation": validation, "test": test}[self.split]
        self.source_indices = np.sort(chosen)
        pixels = np.rint(digits.images[self.source_indices] * 255 / 16)
        self.images = pixels.astype(np.uint8)  # [N, 8, 8]
        self.labels: list[int] = digits.target[self.source_indices].tolist()
        self.class_names = [str(name) for name in digits.target_names]
        self.image_size = (8, 8)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """(grey image, class)."""
        return Image.fromarray(self.images[index]), self.labels[index]

    def filename(self, index: int) -> str:
        """Where the image stands in scikit-learn's data."""
        return f"load_digits().images[{self.source_indices[index]}]"


def _stratified(
    indices: np.ndarray, labels: np.ndarray, held_out: int
) -> tuple[np.ndarray, np.ndarray]:
    kept, taken = train_test_split(
        indices, test_size=held_out, stratify=labels[indices], random_state=_SPLIT_SEED
    )
    return kept, taken
