"""Becomes a program that is told to stop when the process that started it dies, however it dies.

python child.py PARENT COMMAND...

Linux sends the signal; elsewhere nobody does.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h; it outlives exec


def main() -> None:
    """Ask for the signal, then become COMMAND."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("the process that started this one is dead")  # before it could be told
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
