"""All that a first look at a GPU needs, in under ten minutes: tests, norms, training steps.

Runs the tests marked `gpu`; measures norms against nn.LayerNorm and a plain copy; measures steps of
ViT-B, MAE-B and DiT-B/4 in bfloat16, as they are and under torch.compile. Writes gpu.json and
gpu.md into --out. What does not fit into the time or the memory is named there as not measured.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vision.benchmark.gpu_table import markdown
from vision.benchmark.norms import NormResult, benchmark_norms, implementations
from vision.benchmark.steps import STEPS, StepSettings, training_step
from vision.environment import choose_device, environment_record
from vision.errors import ConfigError
from vision.files import check_writable, write_json, written

_ROOT = Path(__file__).parents[2]
_LIMIT = 570.0  # seconds; nothing is begun later
_TESTS_LIMIT = 200.0
_NORMS = ("layernorm", "seednorm")


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    norm_batch: int = 64  # of 197 tokens: 12,608 rows
    steps: tuple[StepSettings, ...] = STEPS
    norm_rounds: int = 5
    rounds: int = 20
    warm_up: int = 3
    compiled: tuple[bool, ...] = (False, True)


@dataclass(frozen=True)
class StepResult:
    """A training step; `seconds` and `peak_bytes` are None where `failure` says why."""

    model: str
    norm: str
    compiled: bool
    batch: int
    seconds: float | None = None  # median
    peak_bytes: int | None = None  # of the accelerator; None elsewhere
    failure: str = ""


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/gpu"), metavar="DIR", help="default %(default)s")


def run(arguments: Namespace) -> None:
    """Measure, print and write. Raises ConfigError where there is no GPU."""
    if not torch.cuda.is_available():
        raise ConfigError(
            "no GPU here (torch.cuda.is_available() is false): tools/benchmark.py gpu needs one; "
            "norms, models and mae run on a CPU"
        )
    measure(choose_device("cuda"), Sizes(), arguments.out, run_tests)


def measure(
    device: torch.device, sizes: Sizes, out: Path, tests: Callable[[], dict[str, Any]]
) -> None:
    """Measure on `device`, print the table, and write gpu.json and gpu.md into `out`."""
    check_writable(out / "gpu.json")
    start = time.monotonic()
    record: dict[str, Any] = {"environment": environment_record(), "tests": tests()}
    print(f"tests   {record['tests']['summary']}", flush=True)
    norms = list(_norms(device, sizes))
    record["norms"] = [asdict(result) for result in norms]
    print(f"norms   {len(norms)} measured", flush=True)
    steps = []
    for result in _steps(device, sizes, start + _LIMIT):
        steps.append(result)
        told = result.failure or f"{(result.seconds or 0) * 1e3:.1f} ms"
        how = "compiled" if result.compiled else "eager"
        print(f"step    {result.model} {result.norm} {how}: {told}", flush=True)
    record["steps"] = [asdict(result) for result in steps]
    record["wall_seconds"] = round(time.monotonic() - start, 1)
    write_json(out / "gpu.json", record)
    with written(out / "gpu.md") as temporary:
        temporary.write_text(markdown(record), encoding="utf-8")
    print(f"\n{markdown(record)}\nwritten {out / 'gpu.json'} and {out / 'gpu.md'}", flush=True)


def run_tests(limit: float = _TESTS_LIMIT) -> dict[str, Any]:
    """Run the tests marked `gpu` in a process of their own: exit code, summary, their failures."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--durations=0", "tests"]
    try:
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"code": None, "summary": f"not finished after {limit:.0f} s", "failures": []}
    lines = (done.stdout + done.stderr).splitlines()
    counts = [line for line in lines if re.search(r"\d+ (passed|failed|error|skipped)", line)]
    summary = counts[-1].strip("= ") if counts else (lines[-1] if lines else "no output")
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"code": done.returncode, "summary": summary, "failures": failures}


def _norms(device: torch.device, sizes: Sizes) -> Iterator[NormResult]:
    found = implementations(device, compiled=False)
    batch, rounds = sizes.norm_batch, sizes.norm_rounds
    yield from benchmark_norms(found, batch, torch.bfloat16, device, rounds)


def _steps(device: torch.device, sizes: Sizes, deadline: float) -> Iterator[StepResult]:
    for settings in sizes.steps:
        for compiled in sizes.compiled:
            for norm in _NORMS:
                kind = settings.model, norm, compiled, settings.batch
                if time.monotonic() > deadline:
                    yield StepResult(*kind, failure="not measured: out of time")
                    continue
                try:
                    yield StepResult(*kind, *_time_step(device, settings, norm, compiled, sizes))
                except torch.OutOfMemoryError:
                    yield StepResult(*kind, failure="not measured: out of memory")


def _time_step(
    device: torch.device, settings: StepSettings, norm: str, compiled: bool, sizes: Sizes
) -> tuple[float, int | None]:
    """Median seconds of a step, between synchronizations, and its peak of memory."""
    torch.compiler.reset()
    step = training_step(settings, norm, compiled, device)
    accelerated = device.type != "cpu"
    if accelerated:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for number in range(sizes.warm_up + sizes.rounds):
        begin = time.perf_counter()
        step()
        if accelerated:
            torch.cuda.synchronize(device)
        if number >= sizes.warm_up:
            seconds.append(time.perf_counter() - begin)
    peak = torch.cuda.max_memory_allocated(device) if accelerated else None
    return statistics.median(seconds), peak
