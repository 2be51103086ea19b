"""What is a norm in a model from any library, and what it says of itself.

Layers are recognised by class and class name, so that timm, torchvision and diffusers need not
be installed, let alone imported.
"""

from __future__ import annotations

from torch import Tensor, nn

from vision.norms.base import Norm
from vision.norms.registry import registered_classes

# classes that are norms over the last axis without deriving from torch's (timm, diffusers,
# hand-written models); those over axis 1 have "2d" in the name, except the ones listed below
_NAMES = frozenset(
    {"LayerNorm", "RMSNorm", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32"}
    | {"RmsNorm2d", "RmsNorm2dFp32", "SimpleNorm2d", "SimpleNorm2dFp32", "LayerNorm2d"}
    | {"MochiRMSNorm"}
)
_CHANNELS_FIRST = frozenset({"SDCascadeLayerNorm", "WuerstchenLayerNorm"})


def is_norm(module: nn.Module) -> bool:
    """Whether the layer normalizes, over the last axis or axis 1."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm, Norm, *registered_classes())):
        return True
    return not _NAMES.isdisjoint(_class_names(module))


def _class_names(module: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(module).__mro__}


def shape_of(norm: nn.Module) -> tuple[int, ...] | None:
    """Sizes of the normalized axes, however the class stores them; None if it does not."""
    shape = getattr(norm, "normalized_shape", getattr(norm, "dim", None))
    if shape is None:
        weight = getattr(norm, "weight", None)
        shape = weight.shape if isinstance(weight, Tensor) else None
    return (shape,) if isinstance(shape, int) else None if shape is None else tuple(shape)


def is_channels_first(norm: nn.Module) -> bool:
    """Whether it normalizes axis 1."""
    if hasattr(norm, "channels_first"):
        return bool(norm.channels_first)
    if getattr(norm, "data_format", None) == "channels_first":  # ConvNeXt's own code
        return True
    names = _class_names(norm)
    return not names.isdisjoint(_CHANNELS_FIRST) or any("2d" in name for name in names)


def is_affine(norm: nn.Module) -> bool:
    """Whether it has its per-channel scale (and shift)."""
    has_parameters = any(True for _ in norm.parameters())
    return bool(getattr(norm, "elementwise_affine", getattr(norm, "affine", has_parameters)))


def contains_activation(norm: nn.Module) -> bool:
    """Whether it applies an activation, too."""
    if any("NormAct" in name for name in _class_names(norm)):
        return True
    return bool(getattr(norm, "contains_activation", False))
