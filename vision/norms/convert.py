"""Swaps the normalization layers of a model, whichever library it comes from.

Layers are recognised by class and class name, so that timm, torchvision and diffusers need not
be installed, let alone imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import Norm
from vision.norms.registry import create_norm, get_norm, norm_options, registered_classes

# classes that are norms over the last axis without deriving from torch's (timm, diffusers,
# hand-written models); those over axis 1 have "2d" in the name, except the ones listed below
_NAMES = frozenset(
    {"LayerNorm", "RMSNorm", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32"}
    | {"RmsNorm2d", "RmsNorm2dFp32", "SimpleNorm2d", "SimpleNorm2dFp32", "LayerNorm2d"}
    | {"MochiRMSNorm"}
)
_CHANNELS_FIRST = frozenset({"SDCascadeLayerNorm", "WuerstchenLayerNorm"})


@dataclass(frozen=True)
class Conversion:
    """What `convert_norms` did.

    Attributes:
        swapped: (qualified name, old type, new type) of each norm; one that the model holds under
            several names is listed under the first.
        skipped: (qualified name, type, reason) of each norm that was left as it was.
    """

    swapped: tuple[tuple[str, str, str], ...]
    skipped: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        new = " and ".join(dict.fromkeys(kind for _, _, kind in self.swapped))
        text = f"{_count(len(self.swapped))} -> {new}: {_tally(old for _, old, _ in self.swapped)}"
        if self.skipped:
            left = "; ".join(f"{name} ({reason})" for name, _, reason in self.skipped)
            text += f"; {len(self.skipped)} left: {left}"
        return text


@dataclass
class _Found:
    """A norm of the model and every place that holds it: (parent, attribute, qualified name)."""

    norm: nn.Module
    places: list[tuple[nn.Module, str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.places[0][2]

    @property
    def type(self) -> str:
        return type(self.norm).__name__

    def matches(self, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(name, p) for _, _, name in self.places for p in patterns)


def convert_norms(
    model: nn.Module,
    name: str,
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    **options: Any,
) -> Conversion:
    """Replaces the model's LayerNorm- and RMSNorm-like layers, in place, by the norm `name`.

    The new layer takes over the axis, device, dtype, training flag, whether parameters require
    gradients (where the old layer has any), and, unless the option is given, `affine`. Its
    parameters start fresh, its `eps` is the new class's default. Batch and group norms stay.

    Args:
        model: Any model; changed in place. If something is refused it stays as it was.
        name: One of `list_norms()`.
        include: Pattern or patterns (`fnmatch`) on qualified names, such as "blocks.*"; a norm
            is swapped if one of its names matches one of them. Default: all.
        exclude: Patterns of norms to leave, whatever `include` says.
        **options: As for `create_norm`, except `channels_first`, which follows the old layer.

    Returns:
        What was swapped and what was left.

    Raises:
        ValueError: nothing to swap, the model is itself a norm, or the norm does not take an
            option or cannot take a layer's place.
    """
    get_norm(name)
    if "channels_first" in options:
        raise ValueError("channels_first follows the replaced norm; leave the option out")
    if _is_norm(model):
        raise ValueError(
            f"the model is itself a norm ({type(model).__name__}), so there is no place to swap it "
            f"in; make the new one with create_norm({name!r}, dim)"
        )
    found = _find(model)
    chosen = [
        f
        for f in found
        if (include is None or f.matches(_patterns(include)))
        and (exclude is None or not f.matches(_patterns(exclude)))
    ]
    reasons = [(f, _reason_to_skip(f.norm)) for f in chosen]
    skipped = tuple((f.name, f.type, reason) for f, reason in reasons if reason)
    swaps = [(f, _successor(f, name, options, model)) for f, reason in reasons if not reason]
    if not swaps:
        raise ValueError(_nothing_to_swap(model, found, skipped, include, exclude))
    for f, new in swaps:
        for parent, attribute, _ in f.places:
            setattr(parent, attribute, new)
            if isinstance(parent, nn.TransformerEncoderLayer):
                # its fused inference path would run LayerNorm with the new norm's parameters
                parent.activation_relu_or_gelu = 0
    return Conversion(tuple((f.name, f.type, type(new).__name__) for f, new in swaps), skipped)


def _find(model: nn.Module) -> list[_Found]:
    """All norms in the order of the model, without looking inside a norm."""
    found: dict[int, _Found] = {}
    for parent, attribute, name, module in _children(model, ""):
        found.setdefault(id(module), _Found(module)).places.append((parent, attribute, name))
    return list(found.values())


def _children(module: nn.Module, prefix: str) -> Iterator[tuple[nn.Module, str, str, nn.Module]]:
    for attribute, child in module._modules.items():  # named_children() drops second names
        if child is None:
            continue
        if _is_norm(child):
            yield module, attribute, prefix + attribute, child
        else:
            yield from _children(child, f"{prefix}{attribute}.")


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm, Norm, *registered_classes())):
        return True
    return not _NAMES.isdisjoint(_class_names(module))


def _class_names(module: nn.Module) -> set[str]:
    return {cls.__name__ for cls in type(module).__mro__}


def _shape(norm: nn.Module) -> tuple[int, ...] | None:
    """Sizes of the normalized axes, however the class stores them; None if it does not."""
    shape = getattr(norm, "normalized_shape", getattr(norm, "dim", None))
    if shape is None:
        weight = getattr(norm, "weight", None)
        shape = weight.shape if isinstance(weight, Tensor) else None
    return (shape,) if isinstance(shape, int) else None if shape is None else tuple(shape)


def _reason_to_skip(norm: nn.Module) -> str | None:
    if any("NormAct" in name for name in _class_names(norm)):
        return "it contains an activation"
    shape = _shape(norm)
    if shape is None:
        return "its number of channels is unknown"
    return f"it runs over {len(shape)} axes, {shape}" if len(shape) != 1 else None


def _is_channels_first(norm: nn.Module) -> bool:
    if hasattr(norm, "channels_first"):
        return bool(norm.channels_first)
    if getattr(norm, "data_format", None) == "channels_first":  # ConvNeXt's own code
        return True
    names = _class_names(norm)
    return not names.isdisjoint(_CHANNELS_FIRST) or any("2d" in name for name in names)


def _is_affine(norm: nn.Module) -> bool:
    for flag in ("elementwise_affine", "affine"):
        if hasattr(norm, flag):
            return bool(getattr(norm, flag))
    return any(True for _ in norm.parameters())


def _successor(found: _Found, name: str, options: dict[str, Any], model: nn.Module) -> nn.Module:
    """The new norm for one place, with all that it takes over from the old one."""
    old = found.norm
    shape = _shape(old)
    assert shape is not None and len(shape) == 1  # others were skipped
    valid = norm_options(name)
    followed: dict[str, Any] = {}
    if "affine" in valid:
        followed["affine"] = _is_affine(old)
    if _is_channels_first(old):
        if "channels_first" not in valid:
            raise ValueError(
                f"{found.name} normalizes axis 1, which norm {name!r} cannot; let its class derive "
                f"from vision.norms.Norm or take channels_first"
            )
        followed["channels_first"] = True
    try:
        new = create_norm(name, shape[0], **{**followed, **options})
    except ValueError as error:
        raise ValueError(f"{found.name}: {error}") from error
    device, dtype = _placement(old, found.places[0][0], model)
    # a class may not take device and dtype, and where the user gives them they hold
    new.to(device=None if "device" in options else device)
    new.to(dtype=None if "dtype" in options else dtype)
    new.train(old.training)
    old_parameters = list(old.parameters())
    if old_parameters and not any(p.requires_grad for p in old_parameters):
        new.requires_grad_(False)
    return new


def _placement(*modules: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
    """Device and dtype of the first floating-point parameter: the norm's, or one close to it."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return parameter.device, parameter.dtype
    return None, None


def _patterns(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _count(n: int) -> str:
    return f"{n} norm" if n == 1 else f"{n} norms"


def _tally(types: Iterator[str]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in Counter(types).most_common())


def _nothing_to_swap(
    model: nn.Module,
    found: list[_Found],
    skipped: tuple[tuple[str, str, str], ...],
    include: str | Sequence[str] | None,
    exclude: str | Sequence[str] | None,
) -> str:
    if skipped:
        left = "; ".join(f"{name} ({kind}): {reason}" for name, kind, reason in skipped)
        return f"no norm of {type(model).__name__} can be swapped: {left}"
    if found:
        return (
            f"include={include!r}, exclude={exclude!r} select none of the {_count(len(found))} of "
            f"{type(model).__name__}, from {found[0].name!r} to {found[-1].name!r}"
        )
    others = Counter(
        type(m).__name__ for m in model.modules() if "norm" in type(m).__name__.lower()
    )
    listed = ", ".join(f"{kind} x {n}" for kind, n in others.most_common())
    return (
        f"{type(model).__name__} has no LayerNorm- or RMSNorm-like layer to swap; "
        f"its normalization layers: {listed or 'none'}"
    )
