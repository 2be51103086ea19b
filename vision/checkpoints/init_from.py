"""Starting a model from the weights of a run or a file (`model.init_from`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.models import clean_state_dict
from torch import Tensor, nn

from vision.checkpoints.fit import (
    adapt,
    check_blocks,
    check_leftovers,
    other_option,
)
from vision.checkpoints.mae_names import with_encoder_prefix, without_decoder
from vision.checkpoints.read import check_finite, find_checkpoint, read_checkpoint, state_dict_of
from vision.config.schema import ModelConfig
from vision.norms import norm_parameters
from vision.norms.recognize import is_norm
from vision.text import printable


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor when a model was started from a file."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # only in the model: keep their initial values
    unexpected: tuple[str, ...]  # only in the file: ignored
    reshaped: tuple[str, ...]  # interpolated to the model's shape
    fresh_norms: int = 0  # norms left as initialized, because the file has another norm
    adapted: tuple[str, ...] = ()  # what was done to the first convolution, in words

    def __str__(self) -> str:
        lines = [f"weights {self.source}: {len(self.loaded)} tensors loaded"]
        lines += [f"        {note}" for note in self.adapted]
        for kind in ("reshaped", "missing", "unexpected"):
            names = getattr(self, kind)
            if names:
                shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
                lines.append(f"        {kind} {len(names)}: {shown}")
        if self.fresh_norms:
            lines.append(f"        {self.fresh_norms} norms start fresh: the file has another norm")
        return "\n".join(map(printable, lines))


def initialize_from(
    model: nn.Module,
    source: str,
    strict: bool = True,
    norm: str | None = None,
    blocks: ModelConfig | None = None,
    content: dict[str, Any] | None = None,
    norm_options: dict[str, Any] | None = None,
) -> LoadReport:
    """Load the weights of `source` (a run, a timm file, an MAE run or a published MAE) in `model`.

    Three things keep their initial values: a classifier head for other classes; the norm before it,
    if the file pools in another way; all norms, if the file has another norm and not `strict`.
    What is adapted to the model, see `fit.adapt`. `norm` and `norm_options` are the model's
    `norm.name` and `norm.options`, compared with what a run records; so are the heads,
    norm_placement and residual of `blocks`, as tensors of the same names mean something else in
    other blocks. A file that is no run counts as timm's blocks. `content` is what
    `read_checkpoint` gave for `source`, where that was read already; it is left as it is.

    Raises FileNotFoundError; ValueError if the file holds no encoder, lacks a tensor, has one that
    the model has no place for, another shape for one or numbers that are not finite, or was
    trained with another norm.
    """
    content = read_checkpoint(find_checkpoint(source)) if content is None else content
    if blocks is not None:
        check_blocks(source, _record(content).get("model", {}), blocks, model)
    own, state, dropped, original, adapted = _encoder(model, source, content)
    fresh = _fresh(model, own, state)
    other_norms, reason = _other_norms(model, state, fresh, content, norm, norm_options)
    if not strict:
        fresh |= other_norms
    extra = state.keys() - own.keys()
    places = [f"{name}." for name, module in model.named_modules() if is_norm(module)]
    state = {k: v for k, v in state.items() if k not in fresh}
    _check_fit(source, own, state, fresh, reason if strict else "")
    check_leftovers(source, sorted(extra), [*places, *_heads(model), "norm.", "fc_norm."])
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    loaded = sorted(state.keys() & own.keys())
    return LoadReport(
        source=source,
        loaded=tuple(loaded),
        missing=tuple(sorted(own.keys() - state.keys())),
        unexpected=tuple(sorted({*(state.keys() - own.keys()), *dropped})),
        reshaped=tuple(k for k in loaded if k in original and original[k] != own[k].shape),
        fresh_norms=len(_modules(other_norms)),
        adapted=tuple(adapted),
    )


def _encoder(
    model: nn.Module, source: str, content: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...], dict[str, torch.Size], list[str]]:
    """The model's tensors; the file's, under the model's names; those of a decoder that are left
    out; the shapes that the file has; and what was adapted."""
    own, state = model.state_dict(), clean_state_dict(state_dict_of(content))
    check_finite(state, f"model.init_from = {source}")
    dropped: tuple[str, ...] = ()
    if "decoder_embed.weight" in own:
        state = with_encoder_prefix(state)
    else:
        state, dropped = without_decoder(state)
    original = {name: tensor.shape for name, tensor in state.items()}
    state, adapted = adapt(source, state, model)
    head = _heads(model)
    if not any(k in state for k in own if not k.startswith(head)):
        raise ValueError(
            f"model.init_from = {source}: holds no encoder (it has "
            f"{', '.join(sorted(original)[:3])}); give a classifier, an MAE, or its encoder"
        )
    return own, state, dropped, original, adapted


def _fresh(model: nn.Module, own: dict[str, Tensor], state: dict[str, Tensor]) -> set[str]:
    """Tensors of the head and of the norm before it that the file cannot give."""
    head = _heads(model)
    fresh = {
        k for k in own if k.startswith(head) and (k not in state or state[k].shape != own[k].shape)
    }
    for pooling in ("norm.", "fc_norm."):
        if not any(k.startswith(pooling) for k in state):
            fresh |= {k for k in own if k.startswith(pooling)}
    return fresh


def _other_norms(
    model: nn.Module,
    state: dict[str, Tensor],
    fresh: set[str],
    content: dict[str, Any],
    norm: str | None,
    options: dict[str, Any] | None,
) -> tuple[set[str], str]:
    """Tensors of the model's norms and what differs, if the file has another norm."""
    own = norm_parameters(model) - fresh
    modules = _modules(own)
    theirs = {k for k in state if k.rpartition(".")[0] in modules}
    record = _record(content).get("norm", {})
    reason = ""
    if own != theirs:
        lacking = sorted(own - theirs)
        reason = f"it lacks {lacking[0]}" if lacking else "it was trained with another"
    elif norm is not None and record.get("name", norm) != norm:
        reason = "it was trained with another"
    elif norm is not None and options is not None and "name" in record:
        reason = other_option(norm, record.get("options") or {}, options) or ""
        reason = reason and f"it was trained with {reason}"
    return (own, reason) if reason else (set(), "")


def _check_fit(
    source: str,
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    fresh: set[str],
    other_norm: str,
) -> None:
    lacking = sorted(own.keys() - state.keys() - fresh)
    reshaped = sorted(k for k in state.keys() & own.keys() if state[k].shape != own[k].shape)
    has = ", ".join(sorted(state.keys() - own.keys())[:3])
    if other_norm:
        raise ValueError(
            f"model.init_from = {source}: has another norm than the model: {other_norm} (it has "
            f"{has or 'the same names'}); use the norm.name and options of its training, or "
            "model.init_from_norms=carry_over, calibrate or fresh"
        )
    if lacking or reshaped:
        problem = "lacks" if lacking else "has another shape for"
        keys = "width, depth and norm.name"
        if not lacking and any(k.endswith(("pos_embed", "position_bias_table")) for k in reshaped):
            keys = "data.img_size and model.patch_size"
        raise ValueError(
            f"model.init_from = {source}: {problem} {(lacking or reshaped)[0]} and "
            f"{len(lacking) + len(reshaped) - 1} more (it has {has or 'nothing else'}); use the "
            f"{keys} that it was trained with"
        )


def _modules(names: set[str]) -> set[str]:
    """The modules that tensors belong to."""
    return {name.rpartition(".")[0] for name in names}


def _record(content: dict[str, Any]) -> dict[str, Any]:
    """The config of the run that a checkpoint is of; {} for other files."""
    found: dict[str, Any] = (content.get("vision") or {}).get("config", {})
    return found


def _heads(model: nn.Module) -> tuple[str, ...]:
    """How names of the classifier's tensors begin."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))
