"""Times of several functions that are to be compared with each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

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


def alternate(work: Mapping[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each function in each of `rounds` rounds, on the CPU.

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
