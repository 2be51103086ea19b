"""Checks of what a pipeline is asked for: each fault is a ValueError of one line."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Generators = torch.Generator | list[torch.Generator] | None
OutputType = Literal["pil", "np", "pt", "latent"]

OUTPUT_TYPES: tuple[str, ...] = get_args(OutputType)


def class_numbers(
    class_labels: Sequence[int | str] | Tensor, pairs: Iterable[tuple[str, int]], count: int
) -> list[int]:
    """Numbers of classes given by number or name, `count` in all; at least one, and no text of
    which each letter would be taken for a class. ImageNet has two classes named crane: such a name
    is none."""
    if isinstance(class_labels, str) or not hasattr(class_labels, "__iter__"):
        raise ValueError(f"class_labels = {class_labels!r}: expected a list of classes")
    names: dict[str, list[int]] = {}
    for name, owner in dict.fromkeys(pairs):
        names.setdefault(name, []).append(owner)
    numbers = []
    for label in class_labels:
        found: Sequence[int | None] = (
            names.get(label, []) if isinstance(label, str) else [whole_number(label)]
        )
        if len(found) > 1:
            raise ValueError(
                f"class {label!r}: the name of the classes {' and '.join(map(str, found))}; give "
                "one of these numbers"
            )
        number = found[0] if found else None
        if number is None or not 0 <= number < count:
            known = ", ".join(list(names)[:10]) or "none has a name"
            raise ValueError(
                f"class {label!r}: expected a number from 0 to {count - 1}, or a name ({known})"
            )
        numbers.append(number)
    if not numbers:
        raise ValueError("class_labels: expected at least one class, got none")
    return numbers


def whole_number(value: Any) -> int | None:
    """An integer of Python, NumPy or torch; None for anything else, such as 3.7 or True."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError):
        return None


def check_steps(num_inference_steps: Any, most: int) -> None:
    """The number of steps is whole, from 1 to `most`."""
    steps = whole_number(num_inference_steps)
    if steps is None or not 1 <= steps <= most:
        raise ValueError(f"num_inference_steps = {num_inference_steps}: expected 1 to {most}")


def check_guidance(scale: float, interval: Sequence[float], trained: bool) -> None:
    """The scale is a number of at least 0, and 1 where the null class was not `trained`; the
    interval goes from a low to a high fraction of the timesteps."""
    if not 0 <= scale < math.inf:
        raise ValueError(f"guidance_scale = {scale}: expected a number of at least 0; 1 is none")
    if scale != 1 and not trained:
        raise ValueError(
            f"guidance_scale = {scale:g}: the model was trained with dit.label_dropout=0, so its "
            "null class is untrained and cannot guide; use 1, which is no guidance"
        )
    if len(interval) != 2 or not 0 <= interval[0] <= interval[1] <= 1:
        raise ValueError(
            f"guidance_interval = {tuple(interval)}: expected 0 <= low <= high <= 1, fractions of "
            "the timesteps"
        )


def check_guidance_channels(channels: Any, most: int) -> None:
    """The number of guided channels is whole, from 1 to `most`."""
    found = whole_number(channels)
    if found is None or not 1 <= found <= most:
        raise ValueError(f"guidance_channels = {channels}: expected 1 to {most}")


def check_generator(generator: Generators, count: int) -> None:
    """One generator, or a list with one for each of `count` images."""
    if generator is None or isinstance(generator, torch.Generator):
        return
    if not isinstance(generator, list) or not all(
        isinstance(one, torch.Generator) for one in generator
    ):
        raise ValueError(
            f"generator: expected a torch.Generator or a list of them, got {generator!r}"
        )
    if len(generator) != count:
        raise ValueError(
            f"generator: a list of {len(generator)} for {count} images; give one for each, or one "
            "that is no list for all"
        )


def check_latents(latents: Tensor, shape: tuple[int, ...]) -> None:
    """Noise of the right shape, and finite."""
    if not isinstance(latents, Tensor) or latents.shape != shape:
        found = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise ValueError(f"latents: expected shape {shape}, got {found}")
    if not torch.isfinite(latents).all():
        raise ValueError("latents: hold values that are not finite; expected noise of variance 1")


def check_output_type(output_type: Any) -> None:
    """One of `OUTPUT_TYPES`."""
    if output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type = {output_type!r}: expected {', '.join(OUTPUT_TYPES)}")
