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
    steps = {norm: training_step(settings, norm) for norm in norms}
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


def training_step(settings: ModelSettings, norm: str) -> Callable[[], object]:
    """A function that does one step: forward, loss, backward, AdamW."""
    import timm

    from vision.norms import convert_norms

    torch.manual_seed(0)
    device = torch.device(settings.device)
    size: dict[str, Any] = (
        {"img_size": settings.img_size} if settings.model.startswith("vit_") else {}
    )
    model = timm.create_model(settings.model, num_classes=1000, **size).to(device)
    options: dict[str, Any] = {"num_heads": HEADS} if norm == "seednorm" else {}
    convert_norms(model, norm, **options)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    side = settings.img_size
    images = torch.randn(settings.batch, 3, side, side, device=device)
    labels = torch.randint(1000, (settings.batch,), device=device)
    dtype = getattr(torch, settings.dtype)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


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
