"""One line about what a program left out, replaced or changed by itself. Imports no torch."""

from __future__ import annotations

import functools
import gc
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vision.text import show


def is_first_process() -> bool:
    """Whether this is rank 0, by the launcher's variables: torch.distributed starts later."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in ranks)


def metric_text(value: float | None) -> str:
    """A metric with four digits; `not finite` for NaN and infinity, which are null in JSON."""
    return f"{value:.4g}" if value is not None and math.isfinite(value) else "not finite"


@contextmanager
def loading(libraries: str) -> Iterator[None]:
    """Import `libraries` within: said to a person at a terminal, as it takes seconds.

    The garbage collector waits, and later passes over what was imported: going through
    objects that stay takes a fifth of the time.
    """
    if is_first_process() and sys.stderr.isatty():
        show(f"loading {libraries} ...", error=True)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@functools.cache  # a data set may be opened more than once
def notice(line: str) -> None:
    """Print `note: LINE` to stderr, once, in the first process of a run."""
    if is_first_process():
        show(f"note: {line}", error=True)
