"""An MAE pre-training step against the supervised step of the same model."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, replace

import torch

from vision.benchmark.command_line import milliseconds, report
from vision.benchmark.supervised import (
    ModelSettings,
    TrainingStep,
    add_model_arguments,
    supervised_step,
)
from vision.benchmark.timing import Work, median_times
from vision.config import Config
from vision.models.mae import create_mae

DEPTHS = (8, 4)  # of the decoder: as published, and half of it


@dataclass(frozen=True)
class MaeResult:
    """Seconds per step, medians of one run; `step_ratio` is to the supervised step."""

    model: str
    batch: int
    norm: str
    decoder_depth: int | None  # None: the supervised step
    step: float
    step_ratio: float


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    add_model_arguments(parser, "base", batch=8, rounds=5)


def run(arguments: Namespace) -> None:
    """Measure, print and write the results."""
    settings = ModelSettings.given(arguments)
    results = benchmark_mae(settings, arguments.rounds)
    columns = {
        f"{settings.model}, batch {settings.batch}": lambda r: (
            f"MAE, mask ratio 0.75, decoder of {r.decoder_depth} blocks"
            if r.decoder_depth
            else "supervised"
        ),
        "step ms": lambda r: milliseconds(r.step),
        "ratio": lambda r: f"{r.step_ratio:.3f}",
    }
    report(results, columns, arguments.json)


def benchmark_mae(settings: ModelSettings, rounds: int) -> list[MaeResult]:
    """Time the steps in turn: LayerNorm, mask ratio 0.75, decoders 512 wide of each depth.

    Raises ValueError for a model that cannot be the encoder.
    """
    work: dict[str, Work] = {str(depth): pretraining_step(settings, depth) for depth in DEPTHS}
    work["None"] = supervised_step(settings, "layernorm")
    times = median_times(work, torch.device(settings.device), rounds)
    first = settings.model, settings.batch, "layernorm"
    return [
        MaeResult(*first, depth, times[str(depth)], times[str(depth)] / times["None"])
        for depth in (None, *DEPTHS)
    ]


def pretraining_step(settings: ModelSettings, decoder_depth: int) -> TrainingStep:
    """A step that masks, encodes, decodes and learns."""
    torch.manual_seed(0)
    config = Config(task="mae")
    config.model = replace(config.model, name=settings.model)
    config.data = replace(config.data, img_size=settings.img_size)
    config.mae = replace(config.mae, decoder_depth=decoder_depth)
    model = create_mae(config)[0]
    return TrainingStep(settings, model, lambda images: model(images, mask_ratio=0.75)[0])
