"""Starting a model from the weights of a run or a file (`model.init_from`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from vision.checkpoints.mae_names import with_encoder_prefix, without_decoder
from vision.checkpoints.read import find_checkpoint, read_checkpoint, state_dict_of
from vision.config.schema import ModelConfig
from vision.norms import norm_parameters


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor when a model was started from a file."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # only in the model: keep their initial values
    unexpected: tuple[str, ...]  # only in the file: ignored
    reshaped: tuple[str, ...]  # interpolated to the model's shape
    fresh_norms: int = 0  # norms left as initialized, because the file has another norm

    def __str__(self) -> str:
        lines = [f"weights {self.source}: {len(self.loaded)} tensors loaded"]
        for kind in ("reshaped", "missing", "unexpected"):
            names = getattr(self, kind)
            if names:
                shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
                lines.append(f"        {kind} {len(names)}: {shown}")
        if self.fresh_norms:
            lines.append(f"        {self.fresh_norms} norms start fresh: the file has another norm")
        return "\n".join(lines)


def initialize_from(
    model: nn.Module,
    source: str,
    strict: bool = True,
    norm: str | None = None,
    blocks: ModelConfig | None = None,
    content: dict[str, Any] | None = None,
) -> LoadReport:
    """Load the weights of `source` (a run, a timm file, an MAE run or a published MAE) in `model`.

    Three things keep their initial values: a classifier head for other classes; the norm before it,
    if the file pools in another way; all norms, if the file has another norm and not `strict`.
    Position and patch embeddings of a ViT are interpolated to the model's grid. `norm` is the
    model's `norm.name`, compared with the name that a run records; so are norm_placement and
    residual of `blocks`, as tensors of the same names mean something else in other blocks. A file
    that is no run counts as timm's blocks. `content` is what `read_checkpoint` gave for `source`,
    where that was read already; it is left as it is.

    Raises FileNotFoundError; ValueError if the file holds no encoder, lacks a tensor, has another
    shape for one, or was trained with another norm.
    """
    file = find_checkpoint(source)
    content = read_checkpoint(file) if content is None else content
    if blocks is not None:
        _check_blocks(source, content, blocks)
    own, state = model.state_dict(), state_dict_of(content)
    dropped: tuple[str, ...] = ()
    if "decoder_embed.weight" in own:
        state = with_encoder_prefix(state)
    else:
        state, dropped = without_decoder(state)
    original = {name: tensor.shape for name, tensor in state.items()}
    if isinstance(model, VisionTransformer) and "patch_embed.proj.weight" in state:
        state = checkpoint_filter_fn(state, model)
    head = tuple(f"{name}." for name in _classifier_names(model))
    if not any(k in state for k in own if not k.startswith(head)):
        raise ValueError(
            f"model.init_from = {source}: holds no encoder (it has "
            f"{', '.join(sorted(original)[:3])}); give a classifier, an MAE, or its encoder"
        )
    fresh = {
        k for k in own if k.startswith(head) and (k not in state or state[k].shape != own[k].shape)
    }
    for pooling in ("norm.", "fc_norm."):
        if not any(k.startswith(pooling) for k in state):
            fresh |= {k for k in own if k.startswith(pooling)}
    other_norms = _other_norms(model, state, fresh, content, norm)
    if not strict:
        fresh |= other_norms
    state = {k: v for k, v in state.items() if k not in fresh}
    _check_fit(source, own, state, fresh, bool(other_norms) and strict)
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    loaded = sorted(state.keys() & own.keys())
    return LoadReport(
        source=str(file),
        loaded=tuple(loaded),
        missing=tuple(sorted(own.keys() - state.keys())),
        unexpected=tuple(sorted({*(state.keys() - own.keys()), *dropped})),
        reshaped=tuple(k for k in loaded if k in original and original[k] != own[k].shape),
        fresh_norms=len(_modules(other_norms)),
    )


def _other_norms(
    model: nn.Module,
    state: dict[str, Tensor],
    fresh: set[str],
    content: dict[str, Any],
    norm: str | None,
) -> set[str]:
    """Tensors of the model's norms if the file has another norm, else none."""
    own = norm_parameters(model) - fresh
    modules = _modules(own)
    theirs = {k for k in state if k.rpartition(".")[0] in modules}
    record = content.get("vision") or {}
    trained_with = record.get("config", {}).get("norm", {}).get("name")
    if own == theirs and (norm is None or trained_with in (None, norm)):
        return set()
    return own


def _check_blocks(source: str, content: dict[str, Any], model: ModelConfig) -> None:
    record = (content.get("vision") or {}).get("config", {}).get("model", {})
    for key, usual in (("norm_placement", "pre"), ("residual", "standard")):
        ours, theirs = getattr(model, key) or usual, record.get(key) or usual
        if ours != theirs:
            raise ValueError(
                f"model.init_from = {source}: its blocks have model.{key}={theirs}, the model's "
                f"{ours}; set model.{key}={theirs}"
            )


def _check_fit(
    source: str,
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    fresh: set[str],
    other_norm: bool,
) -> None:
    lacking = sorted(own.keys() - state.keys() - fresh)
    reshaped = sorted(k for k in state.keys() & own.keys() if state[k].shape != own[k].shape)
    has = ", ".join(sorted(state.keys() - own.keys())[:3])
    if other_norm:
        reason = f"lacks {lacking[0]}" if lacking else "was trained with another"
        raise ValueError(
            f"model.init_from = {source}: has another norm than the model: it {reason} (it has "
            f"{has or 'the same names'}); use the norm.name that it was trained with, or "
            "model.init_from_norms=carry_over, calibrate or fresh"
        )
    if lacking or reshaped:
        problem = "lacks" if lacking else "has another shape for"
        raise ValueError(
            f"model.init_from = {source}: {problem} {(lacking or reshaped)[0]} and "
            f"{len(lacking) + len(reshaped) - 1} more (it has {has or 'nothing else'}); use the "
            "width, depth and norm.name that it was trained with"
        )


def _modules(names: set[str]) -> set[str]:
    """The modules that tensors belong to."""
    return {name.rpartition(".")[0] for name in names}


def _classifier_names(model: nn.Module) -> list[str]:
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return [names] if isinstance(names, str) else list(names)
