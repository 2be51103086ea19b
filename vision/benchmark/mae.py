"""Pre-training step of a masked autoencoder against the same model's supervised step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from vision.benchmark.models import ModelSettings, TrainingStep
from vision.benchmark.timing import median_times

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


def benchmark_mae(
    settings: ModelSettings,
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> list[MaeResult]:
    """Times the steps in turn: LayerNorm, mask ratio 0.75, decoders 512 wide of each depth.

    Raises ValueError for a model that cannot be the encoder.
    """
    progress("building")
    steps: dict[int | None, Callable[[], object]] = {None: TrainingStep(settings, "layernorm")}
    steps |= {depth: pretraining_step(settings, depth) for depth in DEPTHS}
    times = median_times(
        {str(depth): step for depth, step in steps.items()},
        torch.device(settings.device),
        rounds,
        after_round=lambda: progress("step times"),
    )
    supervised = times[str(None)]
    return [
        MaeResult(
            settings.model,
            settings.batch,
            "layernorm",
            depth,
            times[str(depth)],
            times[str(depth)] / supervised,
        )
        for depth in steps
    ]


def pretraining_step(settings: ModelSettings, decoder_depth: int) -> Callable[[], object]:
    """A function that does one step: mask, encode, decode, loss, backward, AdamW."""
    from vision.config import Config
    from vision.models.mae import create_mae

    torch.manual_seed(0)
    config = Config(task="mae")
    config.model = replace(config.model, name=settings.model)
    config.data = replace(config.data, img_size=settings.img_size)
    config.mae = replace(config.mae, decoder_depth=decoder_depth)
    device = torch.device(settings.device)
    model = create_mae(config)[0].to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images = torch.randn(settings.batch, 3, settings.img_size, settings.img_size, device=device)
    dtype = getattr(torch, settings.dtype)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss, _, _ = model(images, mask_ratio=0.75)
        loss.backward()
        optimizer.step()

    return step
