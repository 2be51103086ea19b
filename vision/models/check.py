"""Sizes of a transformer that do not go together, told by the keys that give them."""

from __future__ import annotations


def check_patches(img_size: int, patch_size: int) -> None:
    """Raise ValueError where square patches do not fill a square image; both in pixels."""
    if img_size % patch_size:
        low = max(img_size // patch_size, 1) * patch_size
        raise ValueError(
            f"data.img_size = {img_size}: not a multiple of the patch size {patch_size} "
            f"(model.patch_size); nearest: {low} or {low + patch_size}"
        )


def check_heads(width: int, num_heads: int) -> None:
    """Raise ValueError where tokens of `width` do not split over the attention heads."""
    if width % num_heads:
        divisors = [d for d in range(1, width + 1) if width % d == 0]
        raise ValueError(
            f"model.num_heads = {num_heads}: does not divide the width {width} "
            f"(model.embed_dim); nearest: {min(divisors, key=lambda d: abs(d - num_heads))}"
        )
