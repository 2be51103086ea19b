"""Pre-training step of a masked autoencoder against the same model's supervised step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from vision.benchmark.models import ModelSettings, training_step
from vision.benchmark.timing import median_times


@dataclass(frozen=True)
class MaeResult:
    """Seconds per step, medians of one run; `step_ratio` is pre-training / supervised."""

    model: str
    batch: int
    norm: str
    supervised: float
    step: float
    step_ratio: float


def benchmark_mae(
    settings: ModelSettings,
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> MaeResult:
    """Times both steps in turn: LayerNorm, mask ratio 0.75, a decoder 512 wide and 8 deep.

    Raises ValueError for a model that cannot be the encoder.
    """
    progress("building")
    steps = {
        "supervised": training_step(settings, "layernorm"),
        "mae": pretraining_step(settings),
    }
    times = median_times(
        steps, torch.device(settings.device), rounds, after_round=lambda: progress("step times")
    )
    supervised, step = times["supervised"], times["mae"]
    return MaeResult(
        settings.model, settings.batch, "layernorm", supervised, step, step / supervised
    )


def pretraining_step(settings: ModelSettings) -> Callable[[], object]:
    """A function that does one step: mask, encode, decode, loss, backward, AdamW."""
    from vision.config import Config
    from vision.models.mae import create_mae

    torch.manual_seed(0)
    config = Config(task="mae")
    config.model = replace(config.model, name=settings.model)
    config.data = replace(config.data, img_size=settings.img_size)
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
