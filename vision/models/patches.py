"""Images to patches and back. A patch is laid out row, column, channel, as in MAE and DiT."""

from __future__ import annotations

import math

from torch import Tensor


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """[B, C, H, W] to [B, L, p*p*C]."""
    p = patch_size
    x = images.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # [B, C, rows, p, columns, p]
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """[B, L, p*p*C] to square images [B, C, H, W]."""
    p, side = patch_size, math.isqrt(patches.shape[1])
    x = patches.unflatten(2, (p, p, -1)).unflatten(1, (side, side))
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)  # [B, C, rows, p, columns, p]
