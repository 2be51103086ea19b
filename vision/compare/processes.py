"""Programs beside each other that end with the one that started them. Imports no torch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from vision.text import show

_CHILD = Path(__file__).with_name("child.py")
_POLL = 0.1  # seconds


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt, no error that anybody handles on the way."""


class Killed(KeyboardInterrupt):
    """A second signal killed the jobs before they had saved."""


@dataclass(frozen=True)
class Job:
    """A command whose output is appended to `log`."""

    command: Sequence[str]
    log: Path


@dataclass
class _Running:
    process: subprocess.Popen
    log: Path
    offset: int  # where its output begins
    start: float


@dataclass(frozen=True)
class Ended:
    """How a job ended: exit code (negative: signal), what it printed, and seconds."""

    code: int
    output: str
    seconds: float


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated` in the main thread."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def run_jobs(
    jobs: Mapping[str, Job],
    at_once: int,
    environment: Mapping[str, str],
    started: Callable[[str], None],
    ended: Callable[[str, Ended], None],
    lock: int | None = None,
) -> None:
    """Run `jobs`, `at_once` of them beside each other, started in their order.

    Whatever ends this function early, SIGTERM and Ctrl-C among them, first stops the jobs: each
    gets SIGTERM and is waited for; a second Ctrl-C or SIGTERM kills them and raises `Killed`. They
    are out of reach of a terminal's Ctrl-C, and get SIGTERM too where this process is killed.
    `lock`: a descriptor that they inherit and so keep a lock on until they end.
    """
    waiting = dict(jobs)
    running: dict[str, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = next(iter(waiting))
                running[name] = _start(waiting.pop(name), environment, lock)
                started(name)
            over = [name for name, each in running.items() if each.process.poll() is not None]
            for name in over:
                ended(name, _end(running.pop(name)))
            if not over:
                time.sleep(_POLL)
    except BaseException:
        _stop([each.process for each in running.values()])
        raise


def _start(job: Job, environment: Mapping[str, str], lock: int | None) -> _Running:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as file:
        offset = file.tell()
        process = subprocess.Popen(
            [sys.executable, str(_CHILD), str(os.getpid()), *job.command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[] if lock is None else [lock],
            start_new_session=True,
        )
    return _Running(process, job.log, offset, time.monotonic())


def _end(running: _Running) -> Ended:
    with running.log.open("rb") as file:
        file.seek(running.offset)
        output = file.read().decode("utf-8", errors="replace")
    seconds = round(time.monotonic() - running.start, 1)
    return Ended(running.process.returncode, output, seconds)


def _stop(processes: Sequence[subprocess.Popen]) -> None:
    alive = [process for process in processes if process.poll() is None]
    if not alive:
        return
    show(
        f"stops {len(alive)} {'run' if len(alive) == 1 else 'runs'}: each ends its step and saves "
        "(once more Ctrl-C or SIGTERM kills them)",
        error=True,
    )
    try:
        for process in alive:
            process.terminate()
        for process in alive:
            process.wait()
    except (Terminated, KeyboardInterrupt):
        for process in alive:
            process.kill()
        raise Killed from None
