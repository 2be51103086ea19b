"""Least squares of one line per channel, from sums that any number of tokens is added to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Line:
    """y ≈ scale·c + shift, and the sum of its squared errors; `[D]`, or a scale `[1]` for all."""

    scale: Tensor
    shift: Tensor
    error: float


class Sums:
    """Per channel, over all tokens: what the least squares of y ≈ w·c + b need. `[D]`, float64."""

    def __init__(self) -> None:
        self.count = 0
        self.c: Any = 0.0
        self.y: Any = 0.0
        self.cc: Any = 0.0
        self.cy: Any = 0.0
        self.yy: Any = 0.0

    def add(self, c: Tensor, y: Tensor) -> None:
        """Take in rows `[N, D]`."""
        self.count += len(c)
        self.c = self.c + c.sum(0)
        self.y = self.y + y.sum(0)
        self.cc = self.cc + c.square().sum(0)
        self.cy = self.cy + (c * y).sum(0)
        self.yy = self.yy + y.square().sum(0)

    def solve(self, scale: Tensor | None, shift: Tensor | None) -> Line:
        """w and b of least error; without a scale w is 1, without a shift b is 0.

        A channel whose core does not vary says nothing of w, which then stays as it is.
        """
        n = self.count
        w = torch.ones_like(self.c)
        if scale is not None:
            centre = 0.0 if shift is None else self.c / n
            variation = self.cc - centre * self.c
            covariation = self.cy - centre * self.y
            if scale.numel() == 1:  # one for all channels
                variation, covariation = variation.sum(), covariation.sum()
            varies = variation > 1e-12 * self.cc
            w = torch.where(varies, covariation / variation, scale.double())
        b = torch.zeros_like(w) if shift is None else (self.y - w * self.c) / n
        error = self.yy - 2 * (w * self.cy + b * self.y) + w * w * self.cc
        total = float((error + 2 * w * b * self.c + n * b * b).sum())
        if scale is not None and scale.numel() == 1:
            w = w[:1]
        return Line(w, b, total if math.isfinite(total) else math.inf)
