"""Reading weights from runs and files, and starting a model from them.

Everything is read with `weights_only`, so a file from a stranger cannot run code.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor when a model was started from a file."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]  # in the model only: keep their initial values
    unexpected: tuple[str, ...]  # in the file only: ignored
    reshaped: tuple[str, ...]  # loaded after interpolation to the model's shape

    def __str__(self) -> str:
        lines = [f"weights {self.source}: {len(self.loaded)} tensors loaded"]
        for kind in ("reshaped", "missing", "unexpected"):
            names = getattr(self, kind)
            if names:
                shown = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
                lines.append(f"        {kind} {len(names)}: {shown}")
        return "\n".join(lines)


def find_checkpoint(path: str | Path, which: str = "last") -> Path:
    """The file meant by a run directory (its `last` or `best` checkpoint) or by a file's path.

    Raises FileNotFoundError.
    """
    path = Path(path)
    file = path / f"{which}.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such checkpoint; expected a run directory with {which}.ckpt, or a "
            ".ckpt, .safetensors or .pth file"
        )
    return file


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Everything in `file` (.safetensors: only tensors). Raises ValueError if it is none."""
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
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


def initialize_from(model: nn.Module, source: str) -> LoadReport:
    """Start `model` from `model.init_from`; its classifier stays fresh where the classes differ.

    Position and patch embeddings of a ViT are interpolated to the model's grid. Raises ValueError
    if the file lacks a tensor other than the classifier's, or holds one that does not fit (for
    example because it was trained with another norm), FileNotFoundError if there is no file.
    """
    file = find_checkpoint(source)
    state = state_dict_of(read_checkpoint(file))
    own = model.state_dict()
    original = {name: tensor.shape for name, tensor in state.items()}
    if isinstance(model, VisionTransformer):
        state = checkpoint_filter_fn(state, model)
    head = tuple(f"{name}." for name in _classifier_names(model))
    fresh = {k for k in own if k.startswith(head) and _shape(state.get(k)) != own[k].shape}
    state = {k: v for k, v in state.items() if k not in fresh}
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    wrong = sorted(k for k in state.keys() & own.keys() if state[k].shape != own[k].shape)
    lacking = [k for k in missing if k not in fresh]
    if lacking or wrong:
        name = (lacking or wrong)[0]
        problem = "lacks" if lacking else "has another shape for"
        raise ValueError(
            f"model.init_from = {source}: {problem} {name} and {len(lacking) + len(wrong) - 1} "
            f"more (it has {', '.join(unexpected[:3]) or 'nothing else'}); use the norm.name, "
            "width and depth that it was trained with"
        )
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    loaded = sorted(state.keys() & own.keys())
    reshaped = tuple(k for k in loaded if k in original and original[k] != own[k].shape)
    return LoadReport(str(file), tuple(loaded), tuple(missing), tuple(unexpected), reshaped)


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
