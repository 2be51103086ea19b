"""Figures of generated images against real ones: sources in, FID and friends out."""

from __future__ import annotations

from typing import Any

__all__ = ["compute"]


def __getattr__(name: str) -> Any:
    if name != "compute":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vision.fid.figures import compute  # imports torch and timm: seconds

    return compute
