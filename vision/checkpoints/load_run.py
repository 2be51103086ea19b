"""Checkpoints of this project's own runs, which record what they are of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.checkpoints.weights import find_checkpoint, read_checkpoint
from vision.config import Config, load_config
from vision.config.load import Source
from vision.norms.registry import load_norm_module


@dataclass(frozen=True)
class RunCheckpoint:
    """A file, all that it holds, and the configuration and classes that it was trained with."""

    file: Path
    content: dict[str, Any]
    config: Config
    class_names: list[str]


def read_run(path: str | Path, which: str, task: str, otherwise: str = "") -> RunCheckpoint:
    """The checkpoint of a run directory (`which`: "last" or "best"), or a .ckpt file.

    A norm of the user's own that the configuration names is registered. Raises FileNotFoundError,
    or ValueError for a checkpoint of another task; `otherwise` says what can be done with that.
    """
    file = find_checkpoint(path, which)
    content = read_checkpoint(file)
    record = content.get("vision")
    if record is None or record["task"] != task:
        found = "no configuration" if record is None else f"task {record['task']}"
        raise ValueError(
            f"{file}: records {found}, expected a checkpoint of task {task}{otherwise}"
        )
    config = load_config([], (), [Source(str(file), record["config"], {})]).config
    if config.norm.module is not None:
        load_norm_module(config.norm.module)
    return RunCheckpoint(file, content, config, list(record["class_names"]))
