"""Swaps the normalization layers of a model, whichever library it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from vision.norms.base import Norm, remarks
from vision.norms.blocks import drop_path_rate_at
from vision.norms.carry_over import remember, take_over
from vision.norms.conversion import Conversion, count, left, tally
from vision.norms.recognize import (
    contains_activation,
    is_affine,
    is_channels_first,
    is_norm,
    shape_of,
)
from vision.norms.registry import create_norm, get_norm, norm_options
from vision.norms.tokens import TokenLayout, read_layout

_NO_ACTIVATION = "no activation before it"

Patterns = str | Sequence[str] | None
_Swap = tuple[list[str], nn.Module, nn.Module]  # places, old norm, new norm


def convert_norms(
    model: nn.Module,
    name: str,
    *,
    carry_over: bool = True,
    include: Patterns = None,
    exclude: Patterns = None,
    layout: TokenLayout | None = None,
    **options: Any,
) -> Conversion:
    """Replaces the model's LayerNorm- and RMSNorm-like layers, in place, by the norm `name`.

    The new layer takes over the axis, device, dtype, training mode, whether parameters require
    gradients (where the old layer has any), and, unless the option is given, `affine`; and with
    `carry_over` the learned scale and shift. Its other parameters start fresh, and its `eps` is the
    new class's default. Batch and group norms stay. `calibrate` fits the new norms further.

    A norm that contains its activation takes the place of those that do too, and of the norm behind
    the activation of timm's Mlp, whose activation becomes the identity. All others stay.

    Args:
        model: Any model; changed in place. It stays as it was if an error is raised.
        name: One of `list_norms()`.
        carry_over: Multiply the new scale by the old one, and add the old shift to the new one. A
            norm without a shift, such as RMSNorm, loses it, and `Conversion.lost` says so.
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
    if is_norm(model):
        raise ValueError(
            f"the model is itself a norm ({type(model).__name__}), so there is no place to swap it "
            f"in; make the new one with create_norm({name!r}, dim)"
        )
    swaps, skipped = _choose(model, name, include, exclude, options)
    news = [new for _, _, new in swaps]
    for names, _, new in swaps:
        if isinstance(new, Norm):
            new.enter_block(drop_path_rate_at(model, names[0]))
    place_norms(news, layout or read_layout(model), type(model).__name__)
    swapped = tuple(_swap(model, *swap) for swap in swaps)
    lost = [(n[0], role) for n, old, new in swaps if carry_over for role in take_over(old, new)]
    return Conversion(swapped, tuple(skipped), remarks(news), tuple(lost))


def _choose(
    model: nn.Module, name: str, include: Patterns, exclude: Patterns, options: dict[str, Any]
) -> tuple[list[_Swap], list[tuple[str, str, str]]]:
    """Which norms are swapped for which new ones, and an entry of `Conversion.skipped` for others.

    Raises ValueError where that leaves none to swap.
    """
    contains = getattr(get_norm(name), "contains_activation", False)
    found = find_norms(model)
    skipped: list[tuple[str, str, str]] = []
    swaps: list[_Swap] = []
    for old, names in found.items():
        if not _matches(names, include, True) or _matches(names, exclude, False):
            continue
        reason = _reason_to_skip(old, contains, _mlp_around(model, names[0]))
        if reason is None:
            swaps.append((names, old, _successor(names[0], old, name, options, model)))
        else:
            skipped.append((names[0], type(old).__name__, reason))
    if not swaps:
        raise ValueError(_nothing_to_swap(model, name, found, skipped, include, exclude))
    return swaps, skipped


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


def find_norms(model: nn.Module) -> dict[nn.Module, list[str]]:
    """All norms in the order of the model with every name they have, without those inside norms."""
    found: dict[nn.Module, list[str]] = {}
    inside = ""
    for name, module in model.named_modules(remove_duplicate=False):
        if inside and name.startswith(inside):  # a module's children come right behind it
            continue
        if is_norm(module):
            found.setdefault(module, []).append(name)
            inside = f"{name}."
    return found


def _swap(
    model: nn.Module, places: list[str], old: nn.Module, new: nn.Module
) -> tuple[str, str, str]:
    """Put the new norm in all places of the old one; an entry of `Conversion.swapped`."""
    replaced = type(old).__name__
    for place in places:
        mlp = _mlp_around(model, place)
        if mlp is not None and contains_activation(new):
            replaced = f"{type(mlp.act).__name__} and {type(old).__name__}"
            mlp.act = nn.Identity()
        else:
            remember(new, old)
        _put(model, place, new)
    return places[0], replaced, type(new).__name__


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


def _mlp_around(model: nn.Module, place: str) -> nn.Module | None:
    """timm's Mlp, if `place` is the norm behind its activation."""
    parent_name, _, attribute = place.rpartition(".")
    parent = model.get_submodule(parent_name)
    if type(parent).__name__ != "Mlp" or attribute != "norm" or isinstance(parent.act, nn.Identity):
        return None
    return parent


def _reason_to_skip(norm: nn.Module, contains: bool, mlp: nn.Module | None) -> str | None:
    """Why the norm stays; `contains`: the new one contains an activation."""
    has = contains_activation(norm)
    if has and not contains:
        return "it contains an activation"
    if contains and not has and mlp is None:
        return _NO_ACTIVATION
    shape = shape_of(norm)
    if shape is None:
        return "its number of channels is unknown"
    return f"it runs over {len(shape)} axes, {shape}" if len(shape) != 1 else None


def _successor(
    place: str, old: nn.Module, name: str, options: dict[str, Any], model: nn.Module
) -> nn.Module:
    """The new norm for the old one at `place`, with all that it takes over from it."""
    shape = shape_of(old)
    assert shape is not None and len(shape) == 1  # others were skipped
    valid = norm_options(name)
    followed: dict[str, Any] = {}
    if "affine" in valid:
        followed["affine"] = is_affine(old)
    if is_channels_first(old):
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
    if getattr(new, "needs_grid", False) and place.endswith(("q_norm", "k_norm")):
        raise ValueError(
            f"{place}: {type(new).__name__} needs the places of tokens, and queries and keys have "
            "heads beside them; take another norm, or none there (model.qk_norm=false)"
        )
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


def _nothing_to_swap(
    model: nn.Module,
    name: str,
    found: dict[nn.Module, list[str]],
    skipped: list[tuple[str, str, str]],
    include: Patterns,
    exclude: Patterns,
) -> str:
    kind = type(model).__name__
    if all(reason == _NO_ACTIVATION for _, _, reason in skipped) and skipped:
        return (
            f"norm {name!r} contains an activation, and none of the {count(len(skipped))} of "
            f"{kind} stands behind one; give its MLPs a norm there (model.mlp_norm=true; in timm "
            "scale_mlp_norm=True), or take another norm"
        )
    if skipped:
        return f"no norm of {kind} can be swapped: {left(skipped)}"
    if found:
        names = [places[0] for places in found.values()]
        return (
            f"include={include!r}, exclude={exclude!r} select none of the {count(len(found))} of "
            f"{kind}, from {names[0]!r} to {names[-1]!r}"
        )
    types = (type(module).__name__ for module in model.modules())
    others = tally((name for name in types if "norm" in name.lower()), "{kind} x {n}")
    return (
        f"{kind} has no LayerNorm- or RMSNorm-like layer to swap; "
        f"its normalization layers: {others or 'none'}"
    )
