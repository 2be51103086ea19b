"""How a run ends before its last step, and what it says then."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl

from vision.errors import DIVERGED, UnwritableError, disk_problem, first_line


@contextmanager
def refused_files(trainer: pl.Trainer) -> Iterator[None]:
    """Inside, where the system refuses a file, UnwritableError says where to go on."""
    try:
        yield
    except OSError as error:
        first = _first_refusal(error)
        if isinstance(first, UnwritableError):
            raise first from None
        problem = disk_problem(first)
        if problem is None:
            raise
        raise UnwritableError(
            f"{problem}; stopped at step {trainer.global_step}, the last checkpoint is intact: "
            "once this is mended, continue with --resume"
        ) from error


def _first_refusal(error: OSError) -> OSError:
    """The error that came first, where Lightning was refused more files as it ended the run."""
    first: OSError = error
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, UnwritableError):
            return found
        if isinstance(found, OSError) and disk_problem(found) is not None:
            first = found
        found = found.__context__
    return first


def end_as_one_of_several(trainer: pl.Trainer) -> None:
    """Leave it to rank 0 to say why training diverged; the others end here, with the same code."""
    if threading.current_thread() is threading.main_thread():
        # torchrun stops all when the first has ended: that must not change the exit code
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if not trainer.is_global_zero:
        sys.exit(DIVERGED)


def lost(trainer: pl.Trainer, error: RuntimeError) -> str:
    """The message of a process that cannot go on, mostly because another process ended."""
    return (
        f"error: process {trainer.global_rank} of {trainer.world_size} ends at step "
        f"{trainer.global_step} ({first_line(error)}). If another process was lost, start the job "
        f"again with --resume: it continues {trainer.default_root_dir} from its last checkpoint"
    )
