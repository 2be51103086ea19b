"""Runs tools/compare.py with its jobs as forks of this process, which has the imports already.

  python tests/forked_jobs.py SCRIPT ARGUMENTS...

For tests of what a comparison does with its runs. Those of how it starts, stops and loses them run
it as it is.
"""

import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from ending import end_with

from vision.compare import processes


class ForkedJob:
    """What vision/compare/processes.py needs of a `subprocess.Popen`, of a Python script."""

    def __init__(
        self, command: Sequence[str], *, stdout: IO[bytes], env: Mapping[str, str], **_: Any
    ) -> None:
        script = command[command.index(sys.executable, 1) + 1 :]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            become(script, stdout.fileno(), env)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def become(script: Sequence[str], output: int, env: Mapping[str, str]) -> NoReturn:
    """Turn this process into the script, as far as it can tell, and end with it."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(script)
    end_with(partial(runpy.run_path, script[0], run_name="__main__"))


def main() -> None:
    sys.argv = sys.argv[1:]
    constants = {"DEVNULL": subprocess.DEVNULL, "STDOUT": subprocess.STDOUT}
    processes.subprocess = SimpleNamespace(Popen=ForkedJob, **constants)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
