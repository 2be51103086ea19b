"""Training step time and peak memory of whole models, norm by norm, against LayerNorm.

A step is that of training: loss, gradients, AdamW, in our tasks. Norms take turns with LayerNorm in
every round, three at a time; ratios are medians over the rounds. Peak memory is that of a process
of its own, without what its libraries take. Leave the machine alone meanwhile; a comparison takes
its cost columns from --json:

    OMP_NUM_THREADS=2 python tools/benchmark.py models --norms all --json runs/costs.json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vision.benchmark import command_line
from vision.benchmark.command_line import report, step_columns, write_record
from vision.benchmark.memory import peak_in_new_process
from vision.benchmark.steps import HEADS, StepSettings, training_step
from vision.benchmark.timing import compare_times
from vision.environment import choose_device
from vision.errors import nearest
from vision.models.dit import DIT_NAMES
from vision.norms import get_norm, list_norms

MODELS = ("vit_base_patch16_224", "mae:vit_base_patch16_224", "dit_b_4")
BASELINE = "layernorm"
# what is measured under a name that is no norm's, or with other options than the norm's own
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "seednorm": ("seednorm", {"num_heads": HEADS}),
    "seednorm_1_head": ("seednorm", {"num_heads": 1}),
    "seednorm_dropout": ("seednorm", {"num_heads": HEADS, "coefficient_dropout": 0.1}),
}
_AT_A_TIME = 3  # norms beside LayerNorm: each is a model with its optimizer in memory


@dataclass(frozen=True)
class ModelResult:
    """One norm in one model; ratios are to LayerNorm in the same run."""

    model: str
    task: str
    label: str
    norm: str
    options: dict[str, Any]  # of the norm
    batch: int
    dtype: str
    step: float  # seconds, median
    peak_bytes: int  # see vision/benchmark/memory.py
    step_ratio: float
    peak_ratio: float


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    command_line.add_arguments(parser, batch=2, rounds=3)
    add = parser.add_argument
    add("--models", nargs="+", default=list(MODELS), metavar="[mae:]NAME", help="timm's, or a DiT")
    add("--norms", nargs="+", default=[BASELINE, "seednorm"], metavar="NORM", help="or: all")
    add("--img-size", type=int, default=224, help="pixels, not of a DiT (default: %(default)s)")


def run(arguments: Namespace) -> None:
    """Measure, print and write. Raises ValueError for what is not known, before the first step."""
    device = choose_device(arguments.device)
    batch, dtype = arguments.batch, getattr(torch, arguments.dtype)
    settings = [step_settings(model, batch, arguments.img_size) for model in arguments.models]
    norms = chosen_norms(arguments.norms)
    results: list[ModelResult] = []
    for each in settings:
        results += benchmark_model(each, norms, arguments.rounds, device, dtype)
        write_record(results, arguments.json)  # what is measured is kept if it ends early
    columns = step_columns(lambda r: r.model, lambda r: r.label, "LayerNorm")
    report(results, columns, arguments.json, text_columns=2)


def step_settings(model: str, batch: int, img_size: int) -> StepSettings:
    """What "mae:NAME", a DiT's name or timm's name stands for; DiTs are of 32x32x4 latents."""
    if model in DIT_NAMES:
        return StepSettings(model, "dit", model, batch, 32, 4)
    name = model.removeprefix("mae:")
    return StepSettings(model, "classify" if name == model else "mae", name, batch, img_size)


def chosen_norms(names: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Label -> norm and options, LayerNorm first. Raises ValueError for an unknown name."""
    known: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in list_norms()}
    known |= VARIANTS
    if list(names) == ["all"]:
        inside = [n for n in list_norms() if getattr(get_norm(n), "contains_activation", False)]
        print(f"left out of all: {', '.join(inside)}, which takes the place of an activation too")
        names = [name for name in known if name not in inside]
    for name in names:
        if name not in known:
            raise ValueError(f"--norms {name}: {nearest(name, [*known, 'all'])}")
    return {name: known[name] for name in dict.fromkeys([BASELINE, *names])}


def benchmark_model(
    settings: StepSettings,
    norms: dict[str, tuple[str, dict[str, Any]]],
    rounds: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[ModelResult]:
    """Measure `norms`, of which the first is the baseline.

    One that the model cannot have is said and left out.
    """
    make = partial(_make_step, settings, device=device, dtype=dtype)
    baseline, *others = norms
    first = make(*norms[baseline])
    peaks = {baseline: peak_in_new_process(make, *norms[baseline], device=device)}
    for start in range(0, max(1, len(others)), _AT_A_TIME):
        steps = {baseline: first}
        for label in others[start : start + _AT_A_TIME]:
            try:
                steps[label] = make(*norms[label])
            except ValueError as error:
                print(f"{settings.model}, {label}: not measured: {error}", flush=True)
                continue
            peaks[label] = peak_in_new_process(make, *norms[label], device=device)
        times = compare_times(steps, device, rounds)
        for label in steps if start == 0 else list(steps)[1:]:
            norm, options = norms[label]
            yield ModelResult(
                settings.model,
                settings.task,
                label,
                norm,
                options,
                settings.batch,
                str(dtype).removeprefix("torch."),
                times[label].seconds,
                peaks[label],
                times[label].ratio,
                peaks[label] / peaks[baseline],
            )


def _make_step(
    settings: StepSettings,
    norm: str,
    options: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
) -> Any:
    return training_step(settings, norm, False, device, dtype, options)
