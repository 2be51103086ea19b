"""Runs a script on a file system that becomes read-only when a certain file is written.

  python tests/read_only.py MOUNT NAME COUNT SCRIPT ARGUMENTS...

MOUNT does so before a file whose name begins with NAME is opened for writing for the COUNT-th time.
Files that are open already stay so, as on a disk that the system itself makes read-only.
"""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class ReadOnly:
    """An audit hook: Python calls it before it opens a file."""

    def __init__(self, place: str, name: str, count: int) -> None:
        self.place = place
        self.name = name
        self.left = count

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | os.PathLike):
            return
        path, _, flags = arguments
        if self.left > 0 and flags & _WRITING and Path(path).name.startswith(self.name):
            self.left -= 1
            if self.left == 0:
                # a second mount in front of the first, which has open files and cannot change
                subprocess.run(["mount", "--bind", self.place, self.place], check=True)
                subprocess.run(["mount", "-o", "remount,ro,bind", self.place], check=True)


def main() -> None:
    place, name, count, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    sys.addaudithook(ReadOnly(place, name, int(count)))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
