"""Reading a checkpoint, whatever wrote it, and taking a model's weights out of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vision.checkpoints.archive import read_file
from vision.checkpoints.sharded import is_sharded, read_rest, read_sharded, rest_file

# what Lightning cannot continue a run without
_NEEDED = ("global_step", "epoch", "loops", "callbacks", "optimizer_states", "lr_schedulers")


def find_checkpoint(path: str | Path, which: str = "last") -> Path:
    """`path` itself, or the checkpoint `which` ("last" or "best") if it is a run directory.

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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Everything in a file, or in the folder of a sharded checkpoint; tensors on the CPU.

    Nothing in it can run code. Raises ValueError for what is no checkpoint, or is damaged.
    """
    return read_sharded(path) if is_sharded(path) else read_file(path)


def read_record(path: Path) -> dict[str, Any]:
    """What a run's checkpoint records of it (task, config, class_names); reads no tensor.

    Raises ValueError for what is no checkpoint of a run.
    """
    content = read_file(rest_file(path) if is_sharded(path) else path, check=False)
    record = content.get("vision")
    if not isinstance(record, dict):
        raise ValueError(f"{path}: records no configuration, expected a run's checkpoint")
    return record


def read_run(path: Path) -> dict[str, Any]:
    """A run's checkpoint, to go on from; of a folder all but the sharded tensors.

    Raises ValueError if it is damaged, or lacks what a run needs to go on.
    """
    content = read_rest(path) if is_sharded(path) else read_file(path)
    missing = [key for key in _NEEDED if key not in content]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}, expected a run's last.ckpt")
    if not isinstance(content["global_step"], int):
        raise ValueError(f"{path}: global_step is no whole number, expected a run's last.ckpt")
    return content


def state_dict_of(content: dict[str, Any], ema: bool = False) -> dict[str, Tensor]:
    """The model's tensors in a run's checkpoint, a timm one, or a plain state dict.

    `ema` takes the averaged weights. Raises ValueError if there are none.
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


def check_finite(state: Mapping[str, Tensor], source: str) -> None:
    """Raise ValueError, naming them, if tensors hold NaN or infinity."""
    broken = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise ValueError(
            f"{source}: {broken[0]} holds numbers that are not finite"
            f"{f', and so do {len(broken) - 1} more tensors' if len(broken) > 1 else ''}; a run "
            "that diverged wrote it, take an earlier checkpoint"
        )


def load_strict(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load every tensor of `model` from `state`, with none left over.

    Raises ValueError if they do not fit, or hold numbers that are not finite.
    """
    check_finite(state, source)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{source}: does not fit the model: {reason}") from None
