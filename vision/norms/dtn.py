"""Dynamic token normalization (Shao et al. 2022, https://arxiv.org/abs/2112.02624)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from vision.norms.base import Norm, check_eps, exact, fill, scale_and_shift
from vision.norms.groupnorm import choose_groups
from vision.norms.registry import register_norm
from vision.norms.tokens import as_tokens


@register_norm("dtn")
class DTN(Norm):
    """y = w·(x − μ)/sqrt(σ² + eps) + b with statistics of the token and of its neighbourhood.

    Per head h, a part of the channels, and token t, with (Δx, Δy) its place less that of token s:

        μ_t = g·mean(x_t) + (1 − g)·Σ_s P[s,t]·x_s,    P = softmax_s(q·(Δx, Δy, Δx² + Δy²))

    The first mean, as in LayerNorm, is over all channels, the second is per channel. σ² is such a
    mixture of variances, with its own g; each g is the sigmoid of a learned scalar. Variances are
    biased. The authors' code divides each head of a token by its RMS beforehand; that is not in
    this formula.

    Tokens without a place get LayerNorm's statistics alone: class token and registers, and `[B, D]`
    behind pooling. A masked encoder has only the kept places. Maps `[B, H, W, D]` are their own
    grid; for `[B, L, D]` it is read from `layout`.

    Args:
        dim: Number of channels.
        num_heads: Must divide `dim`; the paper takes that of the attention. Default: the largest
            divisor up to 8, which is ours, as a norm does not know the attention.
        eps: Added to the variance; 1e-5 as in the authors' code.
        affine: Learn `weight` `[dim]`, from 1, and `bias` `[dim]`, from 0. `mean_gate` and
            `var_gate` `[num_heads]`, whose sigmoids are g, from 0, and q, `places`
            `[num_heads, 3]`, are always there. As in the authors' code, the first k² heads start
            around offsets of a k x k grid, k = floor(sqrt(num_heads)); the others start at 0, a
            mean over all tokens, where that code draws small numbers. None of them decays.
        channels_first: Channels are on axis 1 instead of the last.

    Raises:
        ValueError: `num_heads` does not divide `dim`, `eps` is not a number above 0; in `forward`,
            input that does not fit the layout, or has none.
    """

    mixes_tokens = True
    needs_grid = True

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int | None = None,
        eps: float = 1e-5,
        affine: bool = True,
        channels_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.num_heads = choose_groups(dim, num_heads, 8, "num_heads")
        self.eps = check_eps(eps)
        self.mean_gate = self.vector(self.num_heads, device, dtype)
        self.var_gate = self.vector(self.num_heads, device, dtype)
        self.places = self.matrix(self.num_heads, 3, device, dtype)
        self.weight = self.vector(dim, device, dtype) if affine else None
        self.bias = self.vector(dim, device, dtype) if affine else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        fill([(self.mean_gate, 0.0), (self.var_gate, 0.0), (self.places, 0.0)])
        fill([(self.weight, 1.0), (self.bias, 0.0)])
        side = int(self.num_heads**0.5)
        with torch.no_grad():
            for head in range(side**2):  # −|Δ − offset|², up to a constant
                row, column = divmod(head, side)
                x, y = column - (side - 1) / 2, row - (side - 1) / 2
                self.places[head] = self.places.new_tensor([2 * x, 2 * y, -1.0])

    def normalize(self, x: Tensor) -> Tensor:
        tokens = as_tokens(x)
        places = self._places_of(x)  # of the last tokens
        first = tokens.shape[1] - places.shape[1]
        center = tokens.mean(-1, keepdim=True)  # [B, L, 1]
        square = (tokens - center).square().mean(-1, keepdim=True)
        around, spread = self._of_neighbours(tokens[:, first:], places)
        mean = self._mix(self.mean_gate, center[:, first:], around)
        variance = self._mix(self.var_gate, square[:, first:], spread)
        mean = torch.cat([center[:, :first].expand(-1, -1, self.dim), mean], 1)  # [B, L, D]
        variance = torch.cat([square[:, :first].expand(-1, -1, self.dim), variance], 1)
        y = (tokens - mean) / (variance + self.eps).sqrt()
        return scale_and_shift(y.reshape(x.shape), self.weight, self.bias)

    def _of_neighbours(self, x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance around each token `[B, N, H, D/H]` of `x`, `[B, N, D]`."""
        # the mean of squares less the square of the mean cancels; less where x is centered, which
        # does not change a variance
        center = x.detach().mean(1, keepdim=True) if x.shape[1] else x.new_zeros(())
        heads = (x - center).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [B, H, N, D/H]
        offsets = places.unsqueeze(2) - places.unsqueeze(1)  # [b, t, s, 2]
        distance = offsets.square().sum(-1, keepdim=True)
        known = torch.cat([offsets, distance], -1).to(x.dtype).unsqueeze(1)  # [b, 1, t, s, 3]
        scores = (known * self.places.to(x.dtype).view(-1, 1, 1, 3)).sum(-1)  # [b, H, t, s]
        with exact(x):
            moments = scores.softmax(-1) @ torch.cat([heads, heads.square()], -1)
        mean, square = (part.transpose(1, 2) for part in moments.chunk(2, -1))
        variance = (square - mean.square()).clamp(min=0)
        return mean + (center.unflatten(-1, (self.num_heads, -1)) if center.ndim else 0), variance

    def _mix(self, gate: Tensor, own: Tensor, around: Tensor) -> Tensor:
        """g·own + (1 − g)·around, `[B, N, 1]` and `[B, N, H, D/H]` to `[B, N, D]`."""
        g = gate.to(own.dtype).sigmoid().unsqueeze(-1)  # [H, 1]
        return (g * own.unsqueeze(-1) + (1 - g) * around).flatten(-2)

    def _places_of(self, x: Tensor) -> Tensor:
        """Columns and rows `[1 or B, N, 2]` of the last N tokens; those before them have none."""
        if x.ndim < 3:
            return _grid(0, 0, x)
        layout = self.layout
        kept = None if layout is None else layout.positions
        length = 0
        if layout is not None:
            length = layout.prefix + (math.prod(layout.grid) if kept is None else kept.shape[1])
        if x.ndim == 4 and x.shape[2] != length:
            return _grid(x.shape[1], x.shape[2], x)
        if layout is None or x.ndim != 3 or x.shape[1] != length:
            raise ValueError(
                f"DTN needs to know where tokens stand; input of shape {tuple(x.shape)} is neither "
                f"a map [B, H, W, D] nor [B, {length or 'L'}, D] of a layout; an attention's "
                "queries and keys have none"
            )
        places = _grid(*layout.grid, x)
        return places if kept is None else places[0][kept]

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """How much the statistics of the token itself count, as a mean over heads."""
        gates = {"own_mean": self.mean_gate, "own_variance": self.var_gate}
        return {name: gate.detach().sigmoid().mean() for name, gate in gates.items()}

    def shown_options(self) -> dict[str, Any]:
        return {"num_heads": self.num_heads, "eps": self.eps}


def _grid(rows: int, columns: int, x: Tensor) -> Tensor:
    """Column and row of each place, row by row, `[1, rows·columns, 2]`, on x's device."""
    place = torch.arange(rows * columns, device=x.device)
    return torch.stack([place % max(columns, 1), place // max(columns, 1)], -1).unsqueeze(0)
