"""Which axis holds tokens, and where in the image they stand, for norms that mix tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class TokenMoments:
    """What the tokens are like that a norm gets: sums over all of them.

    Attributes:
        mean: Per channel, `[D]` float64.
        mean_square: Per channel, `[D]` float64.
        rms: Geometric mean of the tokens' RMS, which single large tokens hardly move; 0 if all
            tokens are 0.
    """

    mean: Tensor
    mean_square: Tensor
    rms: float

    @property
    def slopes(self) -> list[float]:
        """Slopes to try for a function that saturates, around 1/RMS; none if all tokens are 0."""
        return [2 ** (step / 2) / self.rms for step in range(-6, 7)] if self.rms > 0 else []

    @property
    def variance(self) -> Tensor:
        """Per channel, `[D]`."""
        return (self.mean_square - self.mean.square()).clamp(min=0)


@dataclass(eq=False)
class TokenLayout:
    """Places of the tokens `[B, prefix + patches, D]` of one model; its norms share one object.

    Attributes:
        grid: Rows and columns of patches in the image.
        prefix: Leading tokens without a place: the class token, registers.
        positions: `[B, kept]` int64, which patches (row by row from 0) are there and in what order,
            as in a masked encoder; None: all of them.
    """

    grid: tuple[int, int]
    prefix: int = 0
    positions: Tensor | None = None

    @contextmanager
    def keeping(self, positions: Tensor) -> Iterator[None]:
        """Within it only the patches at `positions`, `[B, kept]`, are there."""
        self.positions = positions
        try:
            yield
        finally:
            self.positions = None


def read_layout(model: nn.Module) -> TokenLayout | None:
    """The layout of a model with timm's patch embedding; None for one without a grid of tokens."""
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    prefix = getattr(model, "num_prefix_tokens", None)
    if grid is None or not isinstance(prefix, int):
        return None
    return TokenLayout((int(grid[0]), int(grid[1])), prefix)


def as_tokens(x: Tensor) -> Tensor:
    """`[..., D]` as `[B, L, D]`: the first axis counts images, those up to the last one tokens.

    One axis is one token; two axes are one token per image, as behind pooling.
    """
    if x.ndim == 1:
        return x.view(1, 1, -1)
    return x.unsqueeze(1) if x.ndim == 2 else x.flatten(1, -2)
