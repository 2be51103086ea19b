"""Votes of the nearest neighbours."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.utils._python_dispatch import TorchDispatchMode

from vision.metrics.knn import knn_predict


def blobs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    centres = torch.eye(3, 8)
    return centres[labels] + 0.4 * torch.randn(count, 8, generator=generator), labels


def test_it_agrees_with_a_brute_force_search_of_scikit_learn() -> None:
    bank, labels = blobs(90, seed=0)
    queries, _ = blobs(1500, seed=1)  # more than are compared at a time
    unit = torch.nn.functional.normalize
    expected_by = KNeighborsClassifier(
        n_neighbors=7, weights=lambda distance: np.exp((1 - distance**2 / 2) / 0.07)
    ).fit(unit(bank, dim=1), labels)
    expected = torch.from_numpy(expected_by.predict(unit(queries, dim=1)))
    assert torch.equal(knn_predict(queries, bank, labels, 3, neighbors=7), expected)
    for chunk in (1, 4, 25):  # fewer than vote, and more
        found = knn_predict(queries, bank, labels, 3, neighbors=7, chunk=chunk)
        assert torch.equal(found, expected), chunk


def test_the_nearest_decides_alone_with_one_neighbour() -> None:
    bank, labels = blobs(30, seed=0)
    assert torch.equal(knn_predict(5 * bank, bank, labels, 3, neighbors=1), labels)


def test_a_small_bank_votes_whole() -> None:
    bank, labels = torch.eye(3), torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.99, 0.99]])  # two near votes outweigh one nearest
    assert knn_predict(query, bank, labels, 2, neighbors=20).tolist() == [1]


class Largest(TorchDispatchMode):
    """Remembers the bytes of the largest tensor that an operation returned."""

    most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor) and not function.is_view:
                self.most = max(self.most, value.nbytes)
        return result


def test_memory_does_not_grow_with_the_bank() -> None:
    queries, _ = blobs(1100, seed=1)
    for count in (600, 6000):
        bank, labels = blobs(count, seed=0)
        with Largest() as largest:
            knn_predict(queries, bank, labels, 3, chunk=300)
        assert largest.most == 1024 * 300 * 4  # similarities of a part with a chunk, float32


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("chunk", [3, 65_536])
def test_what_is_not_finite_neither_votes_nor_is_right(bad: float, chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(20, 4, generator=generator), torch.randn(9, 4, generator=generator)
    labels = torch.arange(20) % 3
    expected = knn_predict(queries, bank, labels, 3, neighbors=5)
    spoilt = torch.cat([torch.full((2, 4), bad), bank])
    more = torch.cat([torch.tensor([0, 1]), labels])
    queries[4, 1] = bad
    expected[4] = -1
    found = knn_predict(queries, spoilt, more, 3, neighbors=5, chunk=chunk)
    assert torch.equal(found, expected)
