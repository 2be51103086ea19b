"""Training step time and peak memory of a whole timm model, norm by norm."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F

from vision.benchmark.timing import median_times

HEADS = 16  # of SeeDNorm


@dataclass(frozen=True)
class ModelSettings:
    """What is trained, for a few steps on random images."""

    model: str = "vit_base_patch16_224"
    batch: int = 16
    img_size: int = 224
    dtype: str = "float32"  # of autocast where it is not float32
    device: str = "cpu"


@dataclass(frozen=True)
class ModelResult:
    """One norm; ratios are to the first norm measured."""

    norm: str
    model: str
    batch: int
    step: float  # seconds, median
    peak_bytes: int  # of a process of its own on the CPU, of the allocator on a GPU
    step_ratio: float
    peak_ratio: float


def benchmark_models(
    settings: ModelSettings,
    norms: list[str],
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> list[ModelResult]:
    """Measures `norms`, the first being what the others are compared with."""
    peaks = {}
    for norm in norms:
        progress(f"{norm}: peak memory")
        peaks[norm] = peak_memory(settings, norm)
    progress("step times")
    steps = {norm: TrainingStep(settings, norm) for norm in norms}
    count = iter(range(1, rounds + 1))
    times = median_times(
        steps,
        torch.device(settings.device),
        rounds,
        after_round=lambda: progress(f"step times: round {next(count, rounds)} of {rounds}"),
    )
    first = norms[0]
    return [
        ModelResult(
            norm,
            settings.model,
            settings.batch,
            times[norm],
            peaks[norm],
            times[norm] / times[first],
            peaks[norm] / peaks[first],
        )
        for norm in norms
    ]


class TrainingStep:
    """Called, it does one step: forward, loss, backward, `before_optimizer`, AdamW."""

    def __init__(self, settings: ModelSettings, norm: str) -> None:
        import timm

        from vision.norms import convert_norms

        torch.manual_seed(0)
        self._device = torch.device(settings.device)
        self._dtype = getattr(torch, settings.dtype)
        size: dict[str, Any] = (
            {"img_size": settings.img_size} if settings.model.startswith("vit_") else {}
        )
        model = timm.create_model(settings.model, num_classes=1000, **size).to(self._device)
        options: dict[str, Any] = {"num_heads": HEADS} if norm == "seednorm" else {}
        convert_norms(model, norm, **options)
        self.model: torch.nn.Module = model.train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        side = settings.img_size
        self._images = torch.randn(settings.batch, 3, side, side, device=self._device)
        self._labels = torch.randint(1000, (settings.batch,), device=self._device)

    def __call__(self, before_optimizer: Callable[[], object] = lambda: None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        mixed = self._dtype != torch.float32
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=mixed):
            loss = F.cross_entropy(self.model(self._images), self._labels)
        loss.backward()
        before_optimizer()
        self.optimizer.step()


def peak_memory(settings: ModelSettings, norm: str) -> int:
    """Largest memory in use during three steps, in a fresh process.

    Raises:
        RuntimeError: that process failed.
    """
    request = json.dumps({"settings": asdict(settings), "norm": norm})
    command = [sys.executable, "-m", "vision.benchmark.peak", request]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{norm}: the steps failed\n{result.stderr.strip()}")
    return int(result.stdout.splitlines()[-1])
