"""Kernel Inception distance: Bińkowski et al. 2018, https://arxiv.org/abs/1801.01401."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torchmetrics.image.kid import poly_mmd


def kernel_distance(
    fake: Tensor, real: Tensor, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased MMD^2 over random subsets.

    Cubic kernel (x.y / D + 1)^3 on features [N, D]; the kernel is torchmetrics', in float64, the
    subsets are those that torch-fidelity draws for the same seed. Raises ValueError where a set
    is smaller than a subset.
    """
    least = min(len(fake), len(real))
    if not 2 <= subset_size <= least:
        raise ValueError(f"KID subsets of {subset_size} samples: expected 2 to {least}")
    draw = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        x = fake[draw.choice(len(fake), subset_size, replace=False)].double()
        y = real[draw.choice(len(real), subset_size, replace=False)].double()
        values.append(float(poly_mmd(x, y)))
    return float(np.mean(values)), float(np.std(values))
