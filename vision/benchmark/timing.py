"""Times of several functions that are to be compared with each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import track

Work = Callable[[], object]


def median_times(work: Mapping[str, Work], device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of each function.

    On the CPU see `alternate`. On a GPU Triton's `do_bench` times each by CUDA events, clearing the
    L2 cache before every call.
    """
    if device.type == "cuda":
        from triton.testing import do_bench

        return {name: do_bench(f, return_mode="median") / 1e3 for name, f in work.items()}
    return {name: statistics.median(times) for name, times in alternate(work, rounds).items()}


@dataclass(frozen=True)
class Time:
    """Median seconds, and the median over rounds of the ratio to the first function's."""

    seconds: float
    ratio: float


def compare_times(work: Mapping[str, Work], device: torch.device, rounds: int) -> dict[str, Time]:
    """Each function against the first, in rounds that call all of them; see `alternate`."""

    def waited(function: Work) -> Work:
        def call() -> None:
            function()
            if device.type != "cpu":
                torch.accelerator.synchronize()

        return call

    times = alternate({name: waited(function) for name, function in work.items()}, rounds)
    first = next(iter(times.values()))
    return {
        name: Time(
            statistics.median(own),
            statistics.median(a / b for a, b in zip(own, first, strict=True)),
        )
        for name, own in times.items()
    }


def alternate(work: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each of `rounds` rounds.

    A round calls every function once, in an order that turns round by round, so that whatever else
    the machine does hits them alike. The first call of each is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    bar = track(range(rounds + 1), "rounds", console=Console(stderr=True), transient=True)
    for number in bar:
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            work[name]()
            if number:
                times[name].append(time.perf_counter() - start)
    return times
