"""Reading weights from runs and files, and starting a model from them.

Everything is read with `weights_only`, so a file from a stranger cannot run code.
"""

from __future__ import annotations

import argparse
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from vision.checkpoints.archive import check_whole, is_sharded
from vision.checkpoints.mae_formats import with_encoder_prefix, without_decoder
from vision.norms import norm_parameters


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor when a model was started from a file."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # in the model only: keep their initial values
    unexpected: tuple[str, ...]  # in the file only: ignored
    reshaped: tuple[str, ...]  # loaded after interpolation to the model's shape
    fresh_norms: int = 0  # norms that start anew because the file has another kind

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


def find_checkpoint(path: str | Path, which: str = "last") -> Path:
    """The file meant by a run directory (its `last` or `best` checkpoint) or by a file's path.

    Raises FileNotFoundError.
    """
    path = Path(path)
    file = path / f"{which}.ckpt" if path.is_dir() and not is_sharded(path) else path
    if not file.is_file() and not is_sharded(file):
        raise FileNotFoundError(
            f"{file}: no such checkpoint; expected a run directory with {which}.ckpt, or a "
            ".ckpt, .safetensors or .pth file"
        )
    return file


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Everything in `file` (.safetensors: only tensors), or in the folder of a sharded checkpoint.

    Raises ValueError if it is none.
    """
    if is_sharded(file):
        from vision.checkpoints.sharded import read_sharded  # imports much that few need

        return read_sharded(file)
    check_whole(file)
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
        # MAE's training script keeps its arguments beside the weights: data, no code
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{file}: refused, it holds more than weights and might run code ({reason}); save its "
            "state dict alone, with torch.save or as .safetensors"
        ) from None
    except (RuntimeError, safetensors.SafetensorError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{file}: not a checkpoint, or cut short ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {type(content).__name__}, expected a state dict")
    return content


def read_step(file: Path) -> int:
    """At which step a run's checkpoint was saved. Raises ValueError if it is not whole."""
    if is_sharded(file):
        from vision.checkpoints.sharded import read_rest

        return int(read_rest(file)["global_step"])
    return int(read_checkpoint(file)["global_step"])


def state_dict_of(content: dict[str, Any], ema: bool = False) -> dict[str, Tensor]:
    """The model's tensors in a run's checkpoint, a timm one, or a plain state dict.

    `ema` takes the averaged weights. Raises ValueError where there are none.
    """
    prefix = "ema.module." if ema else "model."
    state = content.get("state_dict", content.get("model", content))
    if "pytorch-lightning_version" in content:
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    elif ema:
        state = content.get("state_dict_ema", {})
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(f"the checkpoint holds no {'averaged ' if ema else ''}weights")
    return tensors


def initialize_from(
    model: nn.Module, source: str, strict: bool = True, norm: str | None = None
) -> LoadReport:
    """Start `model` from `model.init_from`: a run, a timm file, an MAE run or published MAE file.

    What stays fresh: a classifier whose classes differ, the norm before it where the file pools
    another way, and, unless `strict`, all norms if the file has another one. Position and patch
    embeddings of a ViT are interpolated to the model's grid. `norm` is the model's `norm.name`,
    compared with the one that the file was trained with where it records that.

    Raises ValueError if the file holds no encoder, lacks a tensor or has another shape for it, or
    was trained with another norm; FileNotFoundError if there is no file.
    """
    file = find_checkpoint(source)
    content = read_checkpoint(file)
    state, dropped = _for_model(model, state_dict_of(content))
    own = model.state_dict()
    original = {name: tensor.shape for name, tensor in state.items()}
    if isinstance(model, VisionTransformer) and "patch_embed.proj.weight" in state:
        state = checkpoint_filter_fn(state, model)
    head = tuple(f"{name}." for name in _classifier_names(model))
    if not any(k in state for k in own if not k.startswith(head)):
        raise ValueError(
            f"model.init_from = {source}: holds no encoder (it has "
            f"{', '.join(sorted(original)[:3])}); give a classifier, an MAE, or its encoder"
        )
    fresh = {k for k in own if k.startswith(head) and _shape(state.get(k)) != own[k].shape}
    pooling = {p: [k for k in own if k.startswith(p)] for p in ("norm.", "fc_norm.")}
    fresh |= {k for p, ks in pooling.items() if not any(x.startswith(p) for x in state) for k in ks}
    fresh_norms = _other_norms(model, state, fresh, content, norm)
    if fresh_norms and not strict:
        fresh |= fresh_norms
    state = {k: v for k, v in state.items() if k not in fresh}
    _check_fit(source, own, state, fresh, bool(fresh_norms) and strict)
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    loaded = sorted(state.keys() & own.keys())
    return LoadReport(
        source=str(file),
        loaded=tuple(loaded),
        missing=tuple(sorted(own.keys() - state.keys())),
        unexpected=tuple(sorted({*(state.keys() - own.keys()), *dropped})),
        reshaped=tuple(k for k in loaded if k in original and original[k] != own[k].shape),
        fresh_norms=len(_parents(fresh_norms)),
    )


def _for_model(
    model: nn.Module, state: dict[str, Tensor]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """`state` under the names of `model`, and the names of a decoder that it has no use for."""
    if hasattr(model, "encoder") and hasattr(model, "decoder_embed"):
        return with_encoder_prefix(state), ()
    return without_decoder(state)


def _other_norms(
    model: nn.Module,
    state: dict[str, Tensor],
    fresh: set[str],
    content: dict[str, Any],
    norm: str | None,
) -> set[str]:
    """Tensors of the model's norms if the file has other norms, else none."""
    own = norm_parameters(model) - fresh
    places = _parents(own)
    theirs = {k for k in state if k.rpartition(".")[0] in places}
    record = content.get("vision") or {}
    trained_with = record.get("config", {}).get("norm", {}).get("name")
    if own == theirs and (norm is None or trained_with in (None, norm)):
        return set()
    return own


def _check_fit(
    source: str,
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    fresh: set[str],
    other_norm: bool,
) -> None:
    lacking = sorted(own.keys() - state.keys() - fresh)
    wrong = sorted(k for k in state.keys() & own.keys() if state[k].shape != own[k].shape)
    unexpected = sorted(state.keys() - own.keys())
    if other_norm:
        told = f"lacks {lacking[0]}" if lacking else "was trained with another"
        raise ValueError(
            f"model.init_from = {source}: has another norm than the model: it {told} (it has "
            f"{', '.join(unexpected[:3]) or 'the same names'}); use the norm.name that it was "
            "trained with, or model.init_from_strict=false to start all norms fresh"
        )
    if lacking or wrong:
        problem = "lacks" if lacking else "has another shape for"
        raise ValueError(
            f"model.init_from = {source}: {problem} {(lacking or wrong)[0]} and "
            f"{len(lacking) + len(wrong) - 1} more (it has "
            f"{', '.join(unexpected[:3]) or 'nothing else'}); use the width, depth and norm.name "
            "that it was trained with"
        )


def _parents(names: set[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def load_strict(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load every tensor of `model` from `state`, nothing left over. Raises ValueError."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{source}: does not fit the model: {reason}") from None


def _classifier_names(model: nn.Module) -> list[str]:
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or "head"
    return [names] if isinstance(names, str) else list(names)


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape
