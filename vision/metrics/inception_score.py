"""Inception score without keeping a prediction: Salimans et al. 2016, 1606.03498."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric


class InceptionScore(Metric):
    """exp of the mean KL(p(y|x) | p(y)), over each of `splits` parts of the samples.

    torchmetrics' InceptionScore keeps all logits. With parts fixed in advance (`split_of`) three
    sums per part suffice: mean KL = mean of sum p log p, minus sum q log q with q the mean of p.
    """

    full_state_update = False
    count: Tensor
    probability: Tensor
    negative_entropy: Tensor

    def __init__(self, num_classes: int, splits: int = 10) -> None:
        super().__init__()
        shapes = {
            "count": (splits,),
            "probability": (splits, num_classes),
            "negative_entropy": (splits,),
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, split: Tensor) -> None:
        """Add logits [B, num_classes] of samples in the parts `split` [B] int64; B may be 0."""
        logits = logits.to(self.count.device, torch.float64)
        split = split.to(logits.device)
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        self.count.index_add_(0, split, torch.ones_like(p[:, 0]))
        self.probability.index_add_(0, split, p)
        self.negative_entropy.index_add_(0, split, (p * log_p).sum(1))

    def compute(self) -> tuple[float, float]:
        """Mean and standard deviation of the score over the parts."""
        count = self.count[:, None]
        q = self.probability / count
        divergence = self.negative_entropy / self.count - torch.special.xlogy(q, q).sum(1)
        scores = divergence.exp()
        return float(scores.mean()), float(scores.std(correction=0))


def split_of(count: int, splits: int, seed: int) -> NDArray[np.int64]:
    """The part of each of `count` samples: equal parts of a permutation, as torch-fidelity cuts."""
    order = np.random.RandomState(seed).permutation(count)
    result = np.empty(count, np.int64)
    for part in range(splits):
        result[order[part * count // splits : (part + 1) * count // splits]] = part
    return result
