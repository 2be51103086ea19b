"""Normalization layers by name. Importing this package does not import torch.

A built-in norm is one file of this folder, named as the norm, that holds one class under
`@register_norm`. Adding such a file is all it takes; a norm can also live in a user's own file
(`load_norm_module`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vision.norms.registry import (
    create_norm,
    get_norm,
    list_norms,
    load_norm_module,
    norm_options,
    register_norm,
)

if TYPE_CHECKING:
    from vision.norms.base import Norm
    from vision.norms.convert import Conversion, convert_norms
    from vision.norms.decay import decayed_parameters, norm_parameters

__all__ = [
    "Conversion",
    "Norm",
    "convert_norms",
    "create_norm",
    "decayed_parameters",
    "get_norm",
    "list_norms",
    "load_norm_module",
    "norm_options",
    "norm_parameters",
    "register_norm",
]

# what needs torch is imported when it is first asked for
_HOMES = {
    "Norm": "base",
    "Conversion": "convert",
    "convert_norms": "convert",
    "decayed_parameters": "decay",
    "norm_parameters": "decay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
