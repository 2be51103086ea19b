"""One program at a time in a directory. Imports no torch."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from vision.errors import ConfigError
from vision.notices import notice

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PATIENCE = 30.0  # seconds that what a dead process left behind gets to end
_DYING = 0.5  # seconds that a process may take to die


@contextmanager
def lock(folder: Path) -> Iterator[int | None]:
    """Hold `folder`, which exists, until the end of the block; yields the lock's descriptor.

    The system lets go when the process dies, however it dies, and not before the processes end that
    it forked or gave the descriptor to: workers of a loader, runs of a comparison. Where the holder
    itself is dead, they are waited for, 30 seconds at most. None: the file system has no locks, as
    a line says.

    Raises ConfigError that names process id, host and since when, where another program holds it.
    """
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        held = _take(file, folder)
        try:
            yield file.fileno() if held else None
        finally:
            if held:
                with suppress(OSError):  # a disk that became read-only; it must hide no error
                    file.truncate(0)  # the file stays: a program about to lock it has it open


def _take(file: IO[str], folder: Path) -> bool:
    """Lock `file`, False where that is impossible."""
    start = time.monotonic()
    while True:
        reason = _try(file)
        if reason is None:
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            file.write(json.dumps(holder))
            file.flush()
            return True
        if reason:
            notice(f"{folder} is not locked ({reason}): start no second program in it")
            return False
        holder = _holder(file)
        dead = _dead(holder)
        if time.monotonic() - start > (_PATIENCE if dead else _DYING):
            raise ConfigError(_in_use(folder, holder))
        if dead:
            notice(f"{folder}: process {holder['pid']} was killed; waits for what it started")
        time.sleep(0.1)


def _try(file: IO[str]) -> str | None:
    """None: locked now; "": another program holds it; else why no program can lock it."""
    if fcntl is None:
        return "this system has no file locks"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return "" if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else str(error.strerror)
    return None


def _holder(file: IO[str]) -> dict[str, Any]:
    """What the holder wrote; empty at the moment when it has not yet."""
    file.seek(0)
    try:
        found = json.loads(file.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _dead(holder: dict[str, Any]) -> bool:
    """Whether the holder is known to have ended; a process of another host never is."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # ended, but whoever started it has not asked how: Linux keeps its number
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def _in_use(folder: Path, holder: dict[str, Any]) -> str:
    if not holder:
        return f"{folder}: another program has just started in it; wait for it, or stop it"
    who = "process {pid} on {host}, since {since}".format(**{"since": "?", **holder})
    if _dead(holder):
        return (
            f"{folder}: in use by what was started by {who}, which is dead; wait for these "
            "processes, or stop them"
        )
    return f"{folder}: in use by {who}; wait for it, or stop it"
