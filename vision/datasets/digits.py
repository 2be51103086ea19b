"""scikit-learn's handwritten digits: a data set that every machine has.

Read without importing scikit-learn, which takes more than half a second where pandas is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vision.datasets.stratified import Parts, StratifiedReader, stratify

# a sign for each image: the split that `stratify` with seed 0 puts it in
_SPLIT = Path(__file__).with_name("digits_split.txt")
_SIGNS = {"train": ".", "validation": "v", "test": "t"}


class DigitsReader(StratifiedReader):
    """One split of the 1797 grey 8x8 images; values 0..16 are scaled to 0..255.

    1257 images for training, 180 for validation, 360 for test. The split is the same for every run,
    whatever its seed, unless `split_seed` is given.
    """

    def __init__(self, split: str, split_seed: int = 0) -> None:
        table = np.loadtxt(_file(), delimiter=",")  # [1797, 8 * 8 + class]
        labels = table[:, -1].astype(np.int64)
        super().__init__(
            np.rint(table[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8),
            labels,
            _parts(labels, split_seed),
            split,
            source="load_digits().images",
        )


def _file() -> Path:
    """What scikit-learn's `load_digits` reads; tried on 1.9, and a test compares the two."""
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None, "check_data comes first"
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def _parts(labels: NDArray[np.integer], seed: int) -> Parts:
    if seed != 0:
        return stratify(labels, test=360, validation=180, seed=seed)
    signs = np.array(list(_SPLIT.read_text(encoding="ascii").replace("\n", "")))
    return {name: np.flatnonzero(signs == sign) for name, sign in _SIGNS.items()}
