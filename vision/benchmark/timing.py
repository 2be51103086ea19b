"""Times of several functions that are to be compared with each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

Work = Callable[[], object]


def median_times(
    work: Mapping[str, Work],
    device: torch.device,
    rounds: int,
    after_round: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each function.

    On the CPU one round calls every function once, in an order that turns round by round, so that
    whatever else the machine does hits them alike; the first call of each is not counted. On a GPU
    Triton's `do_bench` times each by CUDA events, clearing the L2 cache before every call.
    """
    if device.type == "cuda":
        from triton.testing import do_bench

        return {name: do_bench(f, return_mode="median") / 1e3 for name, f in work.items()}
    times = alternate(work, rounds, after_round)
    return {name: statistics.median(values) for name, values in times.items()}


def alternate(
    work: Mapping[str, Work], rounds: int, after_round: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each function in each of `rounds` rounds, on the CPU: see `median_times`."""
    times: dict[str, list[float]] = {name: [] for name in work}
    names = list(work)
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            work[name]()
            if number:
                times[name].append(time.perf_counter() - start)
        after_round()
    return times
