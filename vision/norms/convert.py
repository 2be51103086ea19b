"""Swaps the normalization layers of a model, whichever library it comes from.

Layers are recognised by class and class name, so that timm, torchvision and diffusers need not
be installed, let alone imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.base import Norm
from vision.norms.registry import create_norm, get_norm, norm_options, registered_classes
from vision.norms.tokens import TokenLayout, read_layout

# classes that are norms over the last axis without deriving from torch's (timm, diffusers,
# hand-written models); those over axis 1 have "2d" in the name, except the ones listed below
_NAMES = frozenset(
    {"LayerNorm", "RMSNorm", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32"}
    | {"RmsNorm2d", "RmsNorm2dFp32", "SimpleNorm2d", "SimpleNorm2dFp32", "LayerNorm2d"}
    | {"MochiRMSNorm"}
)
_CHANNELS_FIRST = frozenset({"SDCascadeLayerNorm", "WuerstchenLayerNorm"})

Patterns = str | Sequence[str] | None


@dataclass(frozen=True)
class Conversion:
    """What `convert_norms` did.

    Attributes:
        swapped: (qualified name, old type, new type) of each norm; a norm that the model holds
            under several names is listed under the first.
        skipped: (qualified name, type, reason) of each norm left as it was.
    """

    swapped: tuple[tuple[str, str, str], ...]
    skipped: tuple[tuple[str, str, str], ...] = ()

    def __str__(self) -> str:
        new = " and ".join(dict.fromkeys(kind for _, _, kind in self.swapped))
        old = _tally((old for _, old, _ in self.swapped), "{n} {kind}")
        text = f"{_count(len(self.swapped))} -> {new}: {old}"
        if self.skipped:
            left = "; ".join(f"{name} ({reason})" for name, _, reason in self.skipped)
            text += f"; {len(self.skipped)} left: {left}"
        return text


def convert_norms(
    model: nn.Module,
    name: str,
    *,
    include: Patterns = None,
    exclude: Patterns = None,
    layout: TokenLayout | None = None,
    **options: Any,
) -> Conversion:
    """Replaces the model's LayerNorm- and RMSNorm-like layers, in place, by the norm `name`.

    The new layer takes over the axis, device, dtype, training mode, whether parameters require
    gradients (where the old layer has any), and, unless the option is given, `affine`. Its
    parameters start fresh, and its `eps` is the new class's default. Batch and group norms stay.

    Args:
        model: Any model; changed in place. It stays as it was if an error is raised.
        name: One of `list_norms()`.
        include: Pattern or patterns (`fnmatch`) of qualified names, such as "blocks.*"; a norm
            is swapped if one of its names matches one of them. Default: all.
        exclude: Patterns of norms to leave, whatever `include` says.
        layout: Where the model's tokens stand, for a norm that needs it; default: as timm's patch
            embedding says.
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
    skipped: list[tuple[str, str, str]] = []
    swaps: list[tuple[list[str], nn.Module, nn.Module]] = []
    for old, names in found.items():
        if not _matches(names, include, True) or _matches(names, exclude, False):
            continue
        reason = _reason_to_skip(old)
        if reason is not None:
            skipped.append((names[0], type(old).__name__, reason))
        else:
            new = _successor(names[0], old, name, options, model)
            swaps.append((names, old, new))
    if not swaps:
        raise ValueError(_nothing_to_swap(model, found, skipped, include, exclude))
    place_norms((new for _, _, new in swaps), layout or read_layout(model), type(model).__name__)
    for names, _, new in swaps:
        for place in names:
            _put(model, place, new)
    swapped = ((names[0], type(old).__name__, type(new).__name__) for names, old, new in swaps)
    return Conversion(tuple(swapped), tuple(skipped))


def place_norms(norms: Iterable[nn.Module], layout: TokenLayout | None, model: str) -> None:
    """Give the layout to the norms that need it.

    Raises ValueError where there is none; `model` is what the message calls the model.
    """
    for norm in norms:
        if isinstance(norm, Norm) and norm.needs_grid:
            if layout is None:
                raise ValueError(
                    f"{type(norm).__name__} needs to know where tokens stand, and {model} has no "
                    "grid of tokens; use a ViT, or give layout=TokenLayout(grid=(rows, columns))"
                )
            norm.layout = layout


def _find(model: nn.Module) -> dict[nn.Module, list[str]]:
    """All norms in the order of the model with every name they have, without those inside norms."""
    found: dict[nn.Module, list[str]] = {}
    inside = ""
    for name, module in model.named_modules(remove_duplicate=False):
        if inside and name.startswith(inside):  # a module's children come right behind it
            continue
        if _is_norm(module):
            found.setdefault(module, []).append(name)
            inside = f"{name}."
    return found


def _put(model: nn.Module, name: str, new: nn.Module) -> None:
    parent_name, _, attribute = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, attribute, new)
    if isinstance(parent, nn.TransformerEncoderLayer):
        # its fused inference path would run LayerNorm with the new norm's parameters
        parent.activation_relu_or_gelu = 0


def _matches(names: list[str], patterns: Patterns, default: bool) -> bool:
    """Whether one of the names matches one of the patterns; `default` where there are none."""
    if patterns is None:
        return default
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


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
    has_parameters = any(True for _ in norm.parameters())
    return bool(getattr(norm, "elementwise_affine", getattr(norm, "affine", has_parameters)))


def _successor(
    place: str, old: nn.Module, name: str, options: dict[str, Any], model: nn.Module
) -> nn.Module:
    """The new norm for the old one at `place`, with all that it takes over from it."""
    shape = _shape(old)
    assert shape is not None and len(shape) == 1  # others were skipped
    valid = norm_options(name)
    followed: dict[str, Any] = {}
    if "affine" in valid:
        followed["affine"] = _is_affine(old)
    if _is_channels_first(old):
        if "channels_first" not in valid:
            raise ValueError(
                f"{place} normalizes axis 1, which norm {name!r} cannot; let its class derive "
                f"from vision.norms.Norm or take channels_first"
            )
        followed["channels_first"] = True
    try:
        new = create_norm(name, shape[0], **{**followed, **options})
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    parent = model.get_submodule(place.rpartition(".")[0])
    device, dtype = _device_and_dtype(old, parent, model)
    # by `to`, as a class may not take device and dtype; what the user gives has priority
    new.to(device=None if "device" in options else device)
    new.to(dtype=None if "dtype" in options else dtype)
    new.train(old.training)
    trained = [parameter.requires_grad for parameter in old.parameters()]
    if trained and not any(trained):
        new.requires_grad_(False)
    return new


def _device_and_dtype(*modules: nn.Module) -> tuple[torch.device | None, torch.dtype | None]:
    """Those of the first floating-point parameter: the norm's own, or the closest one."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return parameter.device, parameter.dtype
    return None, None


def _count(n: int) -> str:
    return f"{n} norm" if n == 1 else f"{n} norms"


def _tally(types: Iterable[str], form: str) -> str:
    return ", ".join(form.format(n=n, kind=kind) for kind, n in Counter(types).most_common())


def _nothing_to_swap(
    model: nn.Module,
    found: dict[nn.Module, list[str]],
    skipped: list[tuple[str, str, str]],
    include: Patterns,
    exclude: Patterns,
) -> str:
    kind = type(model).__name__
    if skipped:
        left = "; ".join(f"{name} ({old}): {reason}" for name, old, reason in skipped)
        return f"no norm of {kind} can be swapped: {left}"
    if found:
        names = [places[0] for places in found.values()]
        return (
            f"include={include!r}, exclude={exclude!r} select none of the {_count(len(found))} of "
            f"{kind}, from {names[0]!r} to {names[-1]!r}"
        )
    types = (type(module).__name__ for module in model.modules())
    others = _tally((name for name in types if "norm" in name.lower()), "{kind} x {n}")
    return (
        f"{kind} has no LayerNorm- or RMSNorm-like layer to swap; "
        f"its normalization layers: {others or 'none'}"
    )
