"""The published sizes of DiT, by name."""

from __future__ import annotations

_SIZES = {  # (depth, embed_dim, num_heads), table 1 of https://arxiv.org/abs/2212.09748
    "tiny": (6, 192, 3),
    "s": (12, 384, 6),
    "b": (12, 768, 12),
    "l": (24, 1024, 16),
    "xl": (28, 1152, 16),
}
DIT_NAMES = tuple(f"dit_{size}_{patch}" for size in _SIZES for patch in (2, 4, 8))


def dit_size(name: str) -> dict[str, int]:
    """Arguments of `DiT` for a published size. Raises ValueError for an unknown name."""
    if name not in DIT_NAMES:
        raise ValueError(f"{name!r} is no DiT; valid: {', '.join(DIT_NAMES)}")
    _, size, patch = name.split("_")
    depth, embed_dim, num_heads = _SIZES[size]
    return {
        "patch_size": int(patch),
        "depth": depth,
        "embed_dim": embed_dim,
        "num_heads": num_heads,
    }


def usual_heads(embed_dim: int) -> int | None:
    """Number of heads of the published size with this width; None if there is none."""
    return {width: heads for _, width, heads in _SIZES.values()}.get(embed_dim)
