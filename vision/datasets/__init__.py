"""Images in, batches out. Light to import: names below load torch and timm when first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Batch": "dataset",
    "CorruptImageError": "dataset",
    "Draw": "sampler",
    "EvalSampler": "sampler",
    "GlobalBatchSampler": "sampler",
    "ImageDataModule": "datamodule",
    "ImageDataset": "dataset",
    "check_data": "check",
    "corrupt_line": "dataset",
    "derive_seed": "seeding",
    "open_reader": "readers",
    "split_batch": "sampler",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
