"""Trained runs: the model with its weights, and what it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from vision.checkpoints.read import find_checkpoint, load_strict, read_checkpoint, state_dict_of
from vision.config import Config, load_config
from vision.config.load import Source
from vision.models.classifier import create_classifier
from vision.models.dit import DiT, create_dit, differs_by_affine
from vision.models.mae import create_mae
from vision.norms.registry import load_norm_module

# what each task trains, for a number of classes
_CREATE: dict[str, Callable[[Config, int], nn.Module]] = {
    "classify": lambda config, classes: create_classifier(config, classes)[0],
    "mae": lambda config, classes: create_mae(config)[0],
    "dit": create_dit,
}


@dataclass(frozen=True)
class LoadedRun:
    """A trained model in eval mode, on the CPU, and what its checkpoint records."""

    model: nn.Module
    config: Config
    class_names: list[str]
    file: Path
    weights: str  # which they are, in words


def load_run(
    path: str | Path,
    task: str | None,
    which: str = "last",
    ema: bool | None = False,
    hint: str = "",
) -> LoadedRun:
    """Load the model of a run directory, or of one of its checkpoints.

    A norm of the user's own that the run's config names is registered.

    Args:
        path: Run directory, or .ckpt file or folder.
        task: What the run must have trained: "classify", "mae" or "dit"; None: any of them.
        which: Checkpoint of a run directory, "last" or "best".
        ema: Take the averaged weights; None: if the run kept an average.
        hint: What else can be done with a checkpoint of another task, for the error.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It is damaged, of another task, or lacks the weights asked for.
    """
    file = find_checkpoint(path, which)
    content = read_checkpoint(file)
    record = content.get("vision")
    expected = tuple(_CREATE) if task is None else (task,)
    if record is None or record["task"] not in expected:
        found = "no configuration" if record is None else f"task {record['task']}"
        tasks = " or ".join(expected)
        raise ValueError(f"{file}: records {found}, expected a checkpoint of task {tasks}{hint}")
    config = load_config([], (), [Source(str(file), record["config"], {})]).config
    if config.norm.module is not None:
        load_norm_module(config.norm.module)
    class_names = list(record["class_names"])
    model = _CREATE[record["task"]](config, len(class_names))
    averaged = config.ema.decay is not None if ema is None else ema
    state = state_dict_of(content, averaged)
    if isinstance(model, DiT) and differs_by_affine(model, state.keys()):
        config.norm.options["affine"] = True  # what was left out meant it when the run was trained
        model = create_dit(config, len(class_names))
    load_strict(model, state, str(file))
    weights = _which_weights(file, content, averaged)
    return LoadedRun(model.eval(), config, class_names, file, weights)


def _which_weights(file: Path, content: dict[str, Any], averaged: bool) -> str:
    """'the averaged weights of last.ckpt, step 312, epoch 8', with epochs counted from 1."""
    kind = "averaged weights" if averaged else "weights (not the average)"
    place = [f"step {content['global_step']}"] if "global_step" in content else []
    place += [f"epoch {content['epoch'] + 1}"] if "epoch" in content else []
    return f"the {kind} of {', '.join([file.name, *place])}"
