"""The most memory that a function needs, in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from vision.benchmark.timing import Work

_CALLS = 2  # the first of a training step makes the optimizer's state


def peak_in_new_process(make: Callable[..., Work], *arguments: Any, device: torch.device) -> int:
    """Bytes at the peak of two calls of what `make(*arguments)` returns.

    On the CPU the resident memory of the process, less what it had before (libraries); on a GPU
    the allocator's. `make` is a function of a
    module, with arguments that can be pickled.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vision.benchmark.steps"])  # else each imports for seconds
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_peak, make, arguments, device).result()


def _peak(make: Callable[..., Work], arguments: tuple[Any, ...], device: torch.device) -> int:
    before = _resident()
    work = make(*arguments)
    for _ in range(_CALLS):
        work()
    if device.type != "cpu":
        return torch.cuda.max_memory_allocated()
    return _resident() - before


def _resident() -> int:
    """The most that this process has had so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
