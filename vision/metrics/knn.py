"""k nearest neighbors: how well frozen features separate classes, without any training.

Votes are weighted by similarity, as in instance discrimination (Wu et al. 2018,
https://arxiv.org/abs/1805.01978) and DINO.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_TEMPERATURE = 0.07  # as published
_ROWS = 1024  # features compared with the bank at a time, to save memory


def knn_predict(
    features: Tensor, bank: Tensor, labels: Tensor, num_classes: int, neighbors: int = 20
) -> Tensor:
    """Class of each feature by the `neighbors` bank entries of the highest cosine similarity.

    Args:
        features: [N, D].
        bank: [M, D].
        labels: [M] int64, classes of the bank.
        num_classes: Number of classes.
        neighbors: How many vote; all, if the bank has fewer.

    Returns:
        [N] int64. Each vote weighs exp(similarity / 0.07).
    """
    bank = F.normalize(bank.float(), dim=1)
    predicted = []
    for part in F.normalize(features.float(), dim=1).split(_ROWS):
        similarity, nearest = (part @ bank.T).topk(min(neighbors, len(bank)), dim=1)  # [n, k]
        votes = torch.zeros(len(part), num_classes, device=part.device)
        votes.scatter_add_(1, labels[nearest], (similarity / _TEMPERATURE).exp())
        predicted.append(votes.argmax(dim=1))
    return torch.cat(predicted) if predicted else labels.new_empty(0)
