"""k nearest neighbors: how well frozen features separate classes, without any training.

Votes are weighted by similarity, as in instance discrimination (Wu et al. 2018,
https://arxiv.org/abs/1805.01978) and DINO.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TEMPERATURE = 0.07  # as published
_ROWS = 1024  # features that are compared at a time


def knn_predict(
    features: Tensor,
    bank: Tensor,
    labels: Tensor,
    num_classes: int,
    neighbors: int = 20,
    chunk: int = 65_536,
) -> Tensor:
    """Class of each feature by the `neighbors` bank entries of the highest cosine similarity.

    Args:
        features: [N, D].
        bank: [M, D].
        labels: [M] int64, classes of the bank.
        num_classes: Number of classes.
        neighbors: How many vote; all, if the bank has fewer.
        chunk: Bank entries that are compared at a time. Memory beside features and bank is that of
            1024 x `chunk` similarities, 270 MB, a few times over.

    Returns:
        [N] int64. Each vote weighs exp(similarity / 0.07). -1 for a feature that is not finite;
        entries that are not finite have no vote.
    """
    predicted = []
    for part in F.normalize(features.float(), dim=1).split(_ROWS):
        similarity, voters = _nearest(part, bank, labels, neighbors, chunk)
        votes = torch.zeros(len(part), num_classes, device=part.device)
        votes.scatter_add_(1, voters, (similarity / _TEMPERATURE).exp())
        finite = torch.isfinite(part).all(dim=1)
        predicted.append(torch.where(finite, votes.argmax(dim=1), -1))
    return torch.cat(predicted) if predicted else labels.new_empty(0)


def _nearest(
    unit: Tensor, bank: Tensor, labels: Tensor, neighbors: int, chunk: int
) -> tuple[Tensor, Tensor]:
    """Highest similarities of `unit` vectors [n, D] with the bank, and classes there, [n, k]."""
    best, classes = unit.new_empty(len(unit), 0), labels.new_empty(len(unit), 0)
    for entries, their in zip(bank.split(chunk), labels.split(chunk), strict=True):
        found = unit @ F.normalize(entries.float(), dim=1).T
        found = found.nan_to_num(nan=-torch.inf)  # else the nearest of all
        found, place = found.topk(min(neighbors, len(entries)), dim=1)
        best, classes = torch.cat([best, found], 1), torch.cat([classes, their[place]], 1)
        best, kept = best.topk(min(neighbors, best.shape[1]), dim=1)
        classes = classes.gather(1, kept)
    return best, classes
