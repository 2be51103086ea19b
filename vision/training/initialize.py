"""Starting a task from the weights of a run or a file, whichever norm these were trained with."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from torch import nn

from vision.checkpoints.init_from import initialize_from
from vision.checkpoints.pretrained import pretrained
from vision.checkpoints.read import find_checkpoint, read_checkpoint
from vision.config import load_config
from vision.config.load import Source
from vision.config.schema import MaeConfig, NormConfig
from vision.datasets.datamodule import ImageDataModule
from vision.norms import calibrate, load_norm_module
from vision.norms.carry_over import forget, remember, restore_norms, take_over
from vision.norms.recognize import is_norm
from vision.seeding import preserved
from vision.tasks.base import VisionTask

_IMAGES = 512  # to calibrate with
_BATCH = 64  # of them at a time, which bounds memory


def initialize(task: VisionTask, data: ImageDataModule) -> str:
    """Load `model.init_from`, or timm's weights, in the task's model; norms as
    `model.init_from_norms` says.

    Draws nothing from the global generators, and does the same on every rank.

    Returns:
        What was loaded, and what became of the norms.

    Raises:
        ValueError: the file does not fit the model, or its norms are not known.
        FileNotFoundError: there is no such file.
    """
    model = task.config.model
    if model.init_from is not None:
        return _initialize(
            task, data, model.init_from, read_checkpoint(find_checkpoint(model.init_from))
        )
    state, pixels = pretrained(model.name)
    try:
        lines = [_initialize(task, data, model.name, state)]
    except ValueError as error:
        key = f"model.init_from = {model.name}"
        raise ValueError(str(error).replace(key, "model.pretrained = true")) from error
    for key, theirs in pixels.items():
        ours = getattr(data.config, key)
        if len(ours) == len(theirs) and ours != theirs:
            lines.append(f"        timm trained it with data.{key} = {theirs}, here it is {ours}")
    return "\n".join(lines)


def _initialize(
    task: VisionTask, data: ImageDataModule, source: str, content: dict[str, Any]
) -> str:
    config = task.config
    how = config.model.init_from_norms
    report = initialize_from(
        task.model,
        source,
        strict=how == "refuse",
        norm=config.norm.name,
        blocks=config.model,
        content=content,
        norm_options=config.norm.options,
    )
    if not report.fresh_norms:
        idle = "" if how == "refuse" else f"\nnorms   {how}: the file has the model's norm"
        return f"{report}{idle}"
    if how == "fresh":
        return str(report)
    with preserved():
        original = _original(task, source, content, len(data.class_names))
    lines = [str(dataclasses.replace(report, fresh_norms=0)), _carry_over(original, task.model)]
    if how == "calibrate":
        lines.append(_calibrate(task, data))
    return "\n".join(lines)


def _original(
    task: VisionTask, source: str, content: dict[str, Any], num_classes: int
) -> nn.Module:
    """The model with the norms and weights of the file: those that a run records, or timm's own."""
    record = content.get("vision")
    norm, mae = NormConfig(), MaeConfig()
    if record is not None:
        given = load_config([], (), [Source(source, record["config"], {})]).config
        norm, mae = given.norm, given.mae
        if norm.module is not None:
            load_norm_module(norm.module)
    mae = dataclasses.replace(
        task.config.mae,
        decoder_norm=mae.decoder_norm,
        decoder_norm_options=mae.decoder_norm_options,
    )
    config = dataclasses.replace(task.config, norm=norm, mae=mae)
    model, _ = type(task).create_model(config, num_classes)
    if record is None:
        restore_norms(model)
    try:
        initialize_from(model, source, content=content)
    except ValueError as error:
        expected = "those that it records" if record is not None else "those of timm's model"
        raise ValueError(
            f"model.init_from_norms = {task.config.model.init_from_norms}: expected the norms of "
            f"{source} to be {expected}; use fresh ({error})"
        ) from error
    return model


def _carry_over(original: nn.Module, model: nn.Module) -> str:
    """Give scale and shift of the original's norms to the model's; what was done, in a line."""
    olds = {name: module for name, module in original.named_modules() if is_norm(module)}
    taken: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for name, new in model.named_modules():
        old = olds.get(name)
        if old is None or not is_norm(new):
            continue
        if type(old) is type(new) and str(old) == str(new):  # of a part with the file's norm
            new.load_state_dict(old.state_dict())
            forget(new)
            continue
        lost.update(take_over(old, new))
        remember(new, old)
        taken[f"{type(old).__name__} to {type(new).__name__}"] += 1
    text = ", ".join(f"{kinds} ({count})" for kinds, count in taken.items())
    missing = ", ".join(f"the learned {role} of {count}" for role, count in lost.items())
    return f"norms   scale and shift from {text}" + (f"; lost: {missing}" if missing else "")


def _calibrate(task: VisionTask, data: ImageDataModule) -> str:
    loader = data.sample_loader(data.config.train_split, _IMAGES, _BATCH)
    batches = [batch for batch in loader if len(batch.images) > 0]
    number = sum(len(batch.images) for batch in batches)
    result = calibrate(task.model, (task.model_inputs(batch) for batch in batches))
    return f"        calibrated on {number} training images: {result.summary}"
