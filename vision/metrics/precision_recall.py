"""Improved precision and recall: Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991."""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 10_000  # rows of the distance matrix at a time; torch-fidelity's number, for equal digits


def precision_recall(fake: Tensor, real: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Share of fake samples inside the real manifold, and of real ones inside the fake.

    A sample is inside where it is no further from some sample of the other set than that one's
    `neighbours`-th nearest. Features [N, D] float32. Raises ValueError for sets of no more than
    `neighbours` samples.
    """
    for name, features in (("fake", fake), ("real", real)):
        if len(features) <= neighbours:
            raise ValueError(f"{name}: {len(features)} samples, expected more than {neighbours}")
    fake_radius, real_radius = _radii(fake, neighbours), _radii(real, neighbours)
    recalled = []
    precise = torch.zeros(len(fake), dtype=torch.bool)
    for start in range(0, len(real), _ROWS):
        rows = slice(start, start + _ROWS)
        distance = torch.cdist(real[rows], fake)
        recalled.append((distance <= fake_radius).any(1))
        precise |= (distance <= real_radius[rows, None]).any(0)
    return float(precise.float().mean()), float(torch.cat(recalled).float().mean())


def _radii(features: Tensor, neighbours: int) -> Tensor:
    """Distance of each sample to its n-th neighbour; the nearest is the sample itself."""
    parts = [
        torch.cdist(rows, features).kthvalue(neighbours + 1).values
        for rows in features.split(_ROWS)
    ]
    return torch.cat(parts)
