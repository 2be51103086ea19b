"""Fitting the tensors of a file to a model, and saying where they cannot fit.

Equal names and shapes are not enough: attention with other heads, or a norm with other heads, has
the same tensors and another meaning. Where a file records the run it is of, that is compared too.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from vision.config.schema import ModelConfig
from vision.errors import first_line
from vision.norms.registry import get_norm

State = dict[str, Tensor]
# options that change how a norm starts, trains or is computed, and not what its tensors mean
_OF_TRAINING = ("backend", "coefficient_dropout", "device", "dtype")


def adapt(source: str, state: State, model: nn.Module) -> tuple[State, list[str]]:
    """The tensors under the model's names and with its shapes, as far as timm converts them.

    The first convolution is adapted to other channels as timm does; the model's own filter renames
    tensors and interpolates patch and position embeddings.

    Returns:
        The tensors, and what was done to the first convolution, in words.

    Raises:
        ValueError: the prefix tokens differ, or timm's filter cannot convert them.
    """
    state, own = dict(state), model.state_dict()
    notes: list[str] = []
    _check_prefix_tokens(source, state, own)
    first = getattr(model, "pretrained_cfg", {}).get("first_conv") or "patch_embed.proj"
    for name in [first] if isinstance(first, str) else first:
        theirs, ours = state.get(f"{name}.weight"), own.get(f"{name}.weight")
        if theirs is None or ours is None or theirs.ndim != 4 or ours.ndim != 4:
            continue
        channels, wanted = theirs.shape[1], ours.shape[1]
        if channels != wanted:
            state[f"{name}.weight"] = adapt_input_conv(wanted, theirs, base_chans=channels)
            notes.append(f"{name} adapted from {channels} to {wanted} channels (data.in_chans)")
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None or not state.keys() & own.keys():
        return state, notes
    try:
        return dict(convert(state, model)), notes
    except Exception as error:  # timm's filters assert, index and reshape what they expect
        raise ValueError(
            f"model.init_from = {source}: timm cannot convert it to this model "
            f"({type(error).__name__}: {first_line(error)}); use the model.name, patch_size and "
            "data.img_size that it was trained with"
        ) from None


def _check_prefix_tokens(source: str, state: State, own: Mapping[str, Tensor]) -> None:
    """Registers and class token stand in the position embedding: counts must be the same."""
    if not any(k in own for k in ("pos_embed", "cls_token")) or "pos_embed" not in state:
        return
    for name, what in (("cls_token", "class token"), ("reg_token", "register tokens")):
        theirs, ours = (
            s[name].shape[1] if name in s and s[name].ndim == 3 else 0 for s in (state, own)
        )
        if theirs != ours:
            raise ValueError(
                f"model.init_from = {source}: has {theirs or 'no'} {what} ({name}), the model "
                f"{ours or 'none'}; choose a model.name with as many"
            )


def check_leftovers(source: str, names: Sequence[str], ignored: Sequence[str]) -> None:
    """Raise ValueError if the file has tensors that the model has no place for.

    `ignored` are the beginnings of names that may be left over.
    """
    extra = sorted(k for k in names if not k.startswith(tuple(ignored)))
    if extra:
        raise ValueError(
            f"model.init_from = {source}: the model has no place for {extra[0]}"
            f"{f' and {len(extra) - 1} more' if len(extra) > 1 else ''}; use the model.name, "
            "depth, qk_norm and options that it was trained with"
        )


def check_blocks(
    source: str, record: Mapping[str, Any], config: ModelConfig, model: nn.Module
) -> None:
    """Raise ValueError if a run's blocks compute something else with tensors of the same shapes.

    That is another `norm_placement`, `residual` or number of attention heads. `record` is the
    section `model` of the run's config, `config` that of `model`.
    """
    for key, usual in (("norm_placement", "pre"), ("residual", "standard")):
        own, other = getattr(config, key) or usual, record.get(key) or usual
        if own != other:
            raise ValueError(
                f"model.init_from = {source}: its blocks have model.{key}={other}, the model's "
                f"{own}; set model.{key}={other}"
            )
    ours = _attention_heads(model)
    if ours is None or "name" not in record:
        return
    theirs = record.get("num_heads") or _usual_heads(record["name"])
    if theirs is not None and theirs != ours:
        raise ValueError(
            f"model.init_from = {source}: has model.num_heads={theirs}, the model {ours}; set "
            f"model.num_heads={theirs}"
        )


def other_option(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """The first option of the norm `name` whose value changes what its tensors mean; or None."""
    try:
        usual = {
            k: p.default
            for k, p in inspect.signature(get_norm(name)).parameters.items()
            if p.default is not inspect.Parameter.empty
        }
    except ValueError:  # a norm of somebody's own, whose module is not loaded
        usual = {}
    for key in sorted({*theirs, *ours}):
        if key in _OF_TRAINING or key.endswith("_init"):
            continue
        values = [options.get(key, usual.get(key)) for options in (theirs, ours)]
        if values[0] != values[1]:
            return f"norm.options.{key}={values[0]}, the model {values[1]}"
    return None


def _attention_heads(model: nn.Module) -> int | None:
    model = getattr(model, "encoder", model)
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or len(blocks) == 0:
        return None
    return getattr(getattr(blocks[0], "attn", None), "num_heads", None)


@cache
def _usual_heads(name: str) -> int | None:
    """The attention heads of a timm model; None where there is no such model, or block."""
    if not timm.is_model(name):
        return None
    with torch.device("meta"):
        return _attention_heads(timm.create_model(name))
