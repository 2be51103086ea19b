"""A fork ends as an interpreter does: tests/ending.py."""

import subprocess
import sys
from pathlib import Path

import pytest

SHARED = """
import atexit, sys, threading, time
atexit.register(lambda: print("exit handler"))
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
print("unflushed", end=" ")
"""


def run(code: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a program in an interpreter of its own."""
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r})\n{code}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("end", "code"),
    [("pass", 0), ("sys.exit()", 0), ("sys.exit(75)", 75), ("sys.exit('why')", 1), ("1 / 0", 1)],
)
def test_end_with_leaves_what_python_leaves(end: str, code: int) -> None:
    whole = run(SHARED + end)
    found = run(f"from ending import end_with\n{SHARED}end_with(lambda: exec({end!r}))")
    assert found[:2] == whole[:2] == (code, "unflushed thread\nexit handler\n")
    assert found[2].splitlines()[-1:] == whole[2].splitlines()[-1:]
