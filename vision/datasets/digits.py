"""scikit-learn's handwritten digits: a data set that every machine has."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from vision.datasets.stratified import StratifiedReader


class DigitsReader(StratifiedReader):
    """One split of the 1797 grey 8x8 images; values 0..16 are scaled to 0..255.

    1257 images for training, 180 for validation, 360 for test. The split is the same for every run,
    whatever its seed, unless `split_seed` is given.
    """

    def __init__(self, split: str, split_seed: int = 0) -> None:
        digits = load_digits()
        super().__init__(
            np.rint(digits.images * 255 / 16).astype(np.uint8),
            digits.target,
            split,
            test=360,
            validation=180,
            seed=split_seed,
            source="load_digits().images",
        )
