"""Votes of the nearest neighbours."""

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

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


def test_the_nearest_decides_alone_with_one_neighbour() -> None:
    bank, labels = blobs(30, seed=0)
    assert torch.equal(knn_predict(5 * bank, bank, labels, 3, neighbors=1), labels)


def test_a_small_bank_votes_whole() -> None:
    bank, labels = torch.eye(3), torch.tensor([0, 1, 1])
    query = torch.tensor([[1.0, 0.99, 0.99]])  # two near votes outweigh one nearest
    assert knn_predict(query, bank, labels, 2, neighbors=20).tolist() == [1]
