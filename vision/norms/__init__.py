"""Normalization layers by name.

A built-in norm is one file of this folder, named as the norm, that holds one class under
`@register_norm`. Adding such a file is all it takes; a norm can also live in a user's own file
(`load_norm_module`).
"""

from vision.norms.base import Norm
from vision.norms.calibrate import Calibration, calibrate
from vision.norms.conversion import Conversion
from vision.norms.convert import convert_norms
from vision.norms.decay import decayed_parameters, norm_parameters
from vision.norms.registry import (
    create_norm,
    get_norm,
    list_norms,
    load_norm_module,
    norm_options,
    register_norm,
)

__all__ = [
    "Calibration",
    "Conversion",
    "Norm",
    "calibrate",
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
