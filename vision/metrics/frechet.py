"""Fréchet distance between Gaussians: what FID computes from Inception's features.

Heusel et al. 2017, https://arxiv.org/abs/1706.08500. torch-fidelity and torchmetrics take the
eigenvalues of C1 C2, which is not symmetric: several times slower, and complex where covariances
are singular. A jackknife also needs one of the two sides decomposed only once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, eigvalsh

from vision.metrics.accumulators import Array, Moments

FEW_SAMPLES = 10_000  # below, the bias of FID is larger than the differences that papers report


class FrechetReference:
    """One of the two Gaussians, its covariance decomposed once for many distances."""

    def __init__(self, mean: NDArray, cov: NDArray) -> None:
        self.mean, self.cov = _checked(mean, cov)
        values, vectors = eigh(self.cov)
        # a singular covariance has zeros, which rounding moves to either side
        kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
        self._root = vectors[:, kept] * np.sqrt(values[kept])  # root @ root.T = cov  # [D, K]

    def distance(self, mean: NDArray, cov: NDArray) -> float:
        """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2).

        The trace of the root is the sum of the roots of the eigenvalues of R' C2 R with
        C1 = R R': symmetric, so they are real whatever the covariances. Raises ValueError
        where shapes differ or a number is not finite.
        """
        mean, cov = _checked(mean, cov)
        if len(mean) != len(self.mean):
            raise ValueError(
                f"features of {len(mean)} numbers against {len(self.mean)}: they come from "
                "different extractors"
            )
        if self._root.shape[1] == 0:
            root_trace = 0.0
        else:
            inner = self._root.T @ cov @ self._root
            values = eigvalsh((inner + inner.T) / 2)
            root_trace = float(np.sqrt(values.clip(min=0)).sum())
        difference = self.mean - mean
        total = difference @ difference + np.trace(self.cov) + np.trace(cov) - 2 * root_trace
        return max(float(total), 0.0)  # of equal Gaussians, rounding leaves it on either side


def jackknife_error(values: list[float]) -> float:
    """Standard error of a statistic from its values with one of G groups left out at a time."""
    deviations = np.asarray(values) - np.mean(values)
    count = len(values)
    return float(np.sqrt((count - 1) / count * (deviations @ deviations)))


def sample_warnings(label: str, moments: Moments) -> list[str]:
    """Warnings about a set that is small for a Fréchet distance."""
    count, dim = moments.count, len(moments.mean)
    if count is None:
        return [f"{label}: the statistics do not say how many samples they are of"]
    found = []
    if count <= dim:
        found.append(
            f"{label}: {count:,} samples for {dim:,} features: the covariance is singular and "
            "the distance far too large to compare with published ones"
        )
    elif count < 2 * dim:
        found.append(f"{label}: {count:,} samples, fewer than twice the {dim:,} features")
    if count < FEW_SAMPLES:
        found.append(
            f"{label}: {count:,} samples, fewer than {FEW_SAMPLES:,}: biased upwards; compare "
            "only with values for equally many"
        )
    return found


def _checked(mean: NDArray, cov: NDArray) -> tuple[Array, Array]:
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"mean of shape {mean.shape}, covariance of shape {cov.shape}: expected [D], [D, D]"
        )
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise ValueError("mean or covariance holds NaN or infinity: look at images and weights")
    return mean, cov
