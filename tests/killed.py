"""Runs a script and sends its process a signal at no moment in particular, but surely in time.

  python tests/killed.py SIGNAL SAVES MOMENT SCRIPT ARGUMENTS...

The moment is counted from the SAVES-th replacement of `last.ckpt`. rename: at once, when the new
file is whole but has not got its name yet; table, diagnostics or previous: when `metrics.csv`,
`diagnostics.csv` or `previous.ckpt` is next replaced; write: within 20 ms after the next
`last.ckpt` was begun; later: after a random part of the time that the last two saves were apart.
The signal is what another process would send.
"""

import os
import random
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

REPLACED = {  # at which moment
    "table": "metrics.csv",
    "diagnostics": "diagnostics.csv",
    "previous": "previous.ckpt",
}
MOMENTS = ("rename", "write", "later", *REPLACED)


class Killer:
    """An audit hook: Python calls it before every rename, so that none is missed."""

    def __init__(self, kind: signal.Signals, saves: int, moment: str) -> None:
        self.kind = kind
        self.saves = saves
        self.moment = moment
        self.times: list[float] = []
        self.sent = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        name = Path(os.fsdecode(arguments[1])).name if event == "os.rename" else None
        due = len(self.times) >= self.saves
        if due and name is not None and name == REPLACED.get(self.moment):
            self.send()
        if due and self.moment == "write" and event == "open" and is_begun(arguments[0]):
            self.send_within(0.02)
        if name != "last.ckpt":
            return
        self.times.append(time.monotonic())
        beyond = len(self.times) - self.saves
        if self.moment == "later" and beyond == 0:
            self.send_within(self.times[-1] - self.times[-2])
        elif beyond == (0 if self.moment == "rename" else 1):
            self.send()  # the clock may be late on a busy machine

    def send_within(self, seconds: float) -> None:
        # the run seeds the module's own generator
        threading.Timer(random.SystemRandom().uniform(0, seconds), self.send).start()

    def send(self) -> None:
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), self.kind)


def is_begun(path: object) -> bool:
    """Whether a file that is opened is a `last.ckpt` before it has its name."""
    return isinstance(path, str | os.PathLike) and Path(path).name == "last.ckpt.tmp"


def main() -> None:
    kind, saves, moment, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    sys.addaudithook(Killer(signal.Signals[kind], int(saves), moment))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
