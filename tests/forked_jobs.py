"""Runs tools/compare.py with its jobs as forks of this process, which has the imports already.

  python tests/forked_jobs.py SCRIPT ARGUMENTS...

For tests of what a comparison does with its runs. Those of how it starts, stops and loses them run
it as it is.
"""

import atexit
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import IO, Any

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


def become(script: Sequence[str], output: int, env: Mapping[str, str]) -> None:
    """Turn this process into the script, as far as it can tell, and end with it."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = list(script)
        runpy.run_path(script[0], run_name="__main__")
        code = 0
    except SystemExit as end:  # every tool ends with a number, see vision/errors.py
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    sys.argv = sys.argv[1:]
    constants = {"DEVNULL": subprocess.DEVNULL, "STDOUT": subprocess.STDOUT}
    processes.subprocess = SimpleNamespace(Popen=ForkedJob, **constants)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
