"""Runs a script and says at its end how many bytes of memory it took beyond those of its start.

  python tests/peak.py SCRIPT ARGUMENTS...

It may take 6 GiB more of addresses at most, so that a script that asks for all memory fails.
"""

import atexit
import os
import resource
import runpy
import sys
from pathlib import Path

_MOST = 6 * 2**30


def _bytes(name: str) -> int:
    (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(name)]
    return 1024 * int(line.split()[1])


def main() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    start = _bytes("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (_bytes("VmSize") + _MOST,) * 2)
    sys.argv = sys.argv[1:]
    say = os.write  # the script's own streams may be closed by then
    atexit.register(lambda: say(1, f"\npeak {_bytes('VmHWM') - start}\n".encode()))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
