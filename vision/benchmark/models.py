"""Training step time (with AdamW) and peak memory of a whole timm model, norm by norm."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.benchmark import command_line
from vision.benchmark.command_line import milliseconds, report
from vision.benchmark.timing import median_times
from vision.environment import choose_device
from vision.norms import convert_norms

HEADS = 16  # of SeeDNorm


@dataclass(frozen=True)
class ModelSettings:
    """What is trained, for a few steps on random images."""

    model: str = "vit_base_patch16_224"
    batch: int = 16
    img_size: int = 224
    dtype: str = "float32"  # of autocast where it is not float32
    device: str = "cpu"

    @classmethod
    def given(cls, a: Namespace) -> ModelSettings:
        """Those of the command line. Raises ValueError for a device that is not here."""
        return cls(a.model, a.batch, a.img_size, a.dtype, str(choose_device(a.device)))


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


def add_model_arguments(parser: ArgumentParser, size: str, batch: int, rounds: int) -> None:
    """Add the arguments of `ModelSettings`; `size` as in timm's ViT names."""
    command_line.add_arguments(parser, batch, rounds)
    parser.add_argument("--model", default=f"vit_{size}_patch16_224", help="a timm name")
    parser.add_argument("--img-size", type=int, default=224, help="pixels")


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    add_model_arguments(parser, "base", batch=16, rounds=10)
    parser.add_argument("--norms", nargs="+", default=["layernorm", "seednorm"])


def run(arguments: Namespace) -> None:
    """Measure, print and write the results."""
    norms = arguments.norms
    results = benchmark_models(ModelSettings.given(arguments), norms, arguments.rounds)
    columns = {
        "norm": lambda r: r.norm,
        "step ms": lambda r: milliseconds(r.step),
        f"time / {norms[0]}": lambda r: f"{r.step_ratio:.3f}",
        "peak MiB": lambda r: f"{r.peak_bytes / 2**20:.0f}",
        f"peak / {norms[0]}": lambda r: f"{r.peak_ratio:.3f}",
    }
    report(results, columns, arguments.json)


def benchmark_models(settings: ModelSettings, norms: list[str], rounds: int) -> list[ModelResult]:
    """Measure `norms`; the others are compared with the first."""
    peaks = {}
    for norm in norms:
        # in a fresh process, whose peak is that of this norm alone
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peaks[norm] = pool.submit(peak_bytes, settings, norm).result()
    steps = {norm: supervised_step(settings, norm) for norm in norms}
    times = median_times(steps, torch.device(settings.device), rounds)
    time, peak = times[norms[0]], peaks[norms[0]]
    model, batch = settings.model, settings.batch
    return [
        ModelResult(n, model, batch, times[n], peaks[n], times[n] / time, peaks[n] / peak)
        for n in norms
    ]


class TrainingStep:
    """Called, it does one step: forward, `loss` on images, backward, `before_optimizer`, AdamW."""

    def __init__(
        self, settings: ModelSettings, model: nn.Module, loss: Callable[[Tensor], Tensor]
    ) -> None:
        self._loss, self._settings = loss, settings
        self.model = model.to(settings.device).train()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        shape = (settings.batch, 3, settings.img_size, settings.img_size)
        self._images = torch.randn(shape, device=settings.device)

    def __call__(self, before_optimizer: Callable[[], object] = lambda: None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        kind, dtype = torch.device(self._settings.device).type, self._settings.dtype
        with torch.autocast(kind, getattr(torch, dtype), enabled=dtype != "float32"):
            loss = self._loss(self._images)
        loss.backward()
        before_optimizer()
        self.optimizer.step()


def supervised_step(settings: ModelSettings, norm: str) -> TrainingStep:
    """A step of timm's model with another norm, on 1000 classes."""
    torch.manual_seed(0)
    vit = settings.model.startswith("vit_")
    size: dict[str, Any] = {"img_size": settings.img_size} if vit else {}
    model = timm.create_model(settings.model, num_classes=1000, **size)
    options: dict[str, Any] = {"num_heads": HEADS} if norm == "seednorm" else {}
    convert_norms(model, norm, **options)
    labels = torch.randint(1000, (settings.batch,), device=settings.device)
    return TrainingStep(settings, model, lambda images: F.cross_entropy(model(images), labels))


def peak_bytes(settings: ModelSettings, norm: str) -> int:
    """Largest memory of this process up to the end of three steps."""
    step = supervised_step(settings, norm)
    for _ in range(3):
        step()
    if settings.device != "cpu":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
