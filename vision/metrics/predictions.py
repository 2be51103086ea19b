"""What the Inception score needs of predictions, from running sums.

The classes of torchmetrics and torch-fidelity keep all logits. With the parts fixed in advance
three sums per part suffice, because mean KL(p | q) = mean sum p log p - sum q log q, where q is
the mean of p.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from vision.metrics.moments import Array


class Predictions(NamedTuple):
    """Sums over S parts of the samples.

    `samples` [S]; `probability` [S, num_classes], the sum of p; `negative_entropy` [S], the sum of
    sum p log p.
    """

    samples: Array
    probability: Array
    negative_entropy: Array


class PredictionSums(Metric):
    """Adds up class probabilities and their entropies in `parts` parts, over all ranks."""

    full_state_update = False
    count: Tensor
    probability: Tensor
    negative_entropy: Tensor

    def __init__(self, num_classes: int, parts: int) -> None:
        super().__init__()
        shapes = {
            "count": (parts,),
            "probability": (parts, num_classes),
            "negative_entropy": (parts,),
        }
        for name, shape in shapes.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, part: Tensor) -> None:
        """Add logits [B, num_classes] of samples in the parts `part` [B] int64; B may be 0."""
        logits = logits.to(self.count.device, torch.float64)
        part = part.to(logits.device)
        log_p = logits.log_softmax(1)
        p = log_p.exp()
        self.count.index_add_(0, part, torch.ones_like(p[:, 0]))
        self.probability.index_add_(0, part, p)
        self.negative_entropy.index_add_(0, part, (p * log_p).sum(1))

    def compute(self) -> Predictions:
        """The sums over all ranks."""
        return Predictions(
            *(x.cpu().numpy() for x in (self.count, self.probability, self.negative_entropy))
        )


def random_parts(count: int, parts: int, seed: int) -> Tensor:
    """The part of each of `count` samples [count] int64: equal parts of a random permutation.

    The same parts as torch-fidelity makes for this seed.
    """
    order = torch.from_numpy(np.random.RandomState(seed).permutation(count))
    result = torch.empty(count, dtype=torch.int64)
    for part in range(parts):
        result[order[part * count // parts : (part + 1) * count // parts]] = part
    return result
