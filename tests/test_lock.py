"""`vision.lock`: who gets into a directory, while its holder lives and after it was killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vision.errors import ConfigError
from vision.lock import lock

ROOT = Path(__file__).parents[1]
HOLD = """
import subprocess, sys, time
from pathlib import Path
from vision.lock import lock
with lock(Path(sys.argv[1])) as held:
    child = subprocess.Popen(["sleep", sys.argv[2]], pass_fds=[held])
    print(child.pid, flush=True)
    time.sleep(60)
"""


def hold(folder: Path, seconds: str) -> tuple[subprocess.Popen, int]:
    """A process that holds `folder`, and has started another that sleeps with the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), seconds],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_a_second_program_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    process, child = hold(tmp_path, "60")
    try:
        where = f"{tmp_path}: in use by process {process.pid} on {socket.gethostname()}, since 20"
        with pytest.raises(ConfigError) as refused, lock(tmp_path):
            pass
        assert str(refused.value).startswith(where)
    finally:
        process.kill()
        process.wait()
        os.kill(child, signal.SIGKILL)
    with lock(tmp_path) as held:
        assert held is not None


def test_what_a_killed_holder_started_is_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    process, _ = hold(tmp_path, "2")
    process.kill()  # and not asked how it ended: it is a zombie
    start = time.monotonic()
    with lock(tmp_path):
        assert 1 < time.monotonic() - start < 20
    process.wait()
    assert f"process {process.pid} was killed; waits for what it started" in capsys.readouterr().err


def test_a_killed_holder_whose_children_stay_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, child = hold(tmp_path, "60")
    process.kill()
    process.wait()
    monkeypatch.setattr("vision.lock._PATIENCE", 0.3)
    try:
        with pytest.raises(ConfigError, match=f"{process.pid} .*, which is dead"), lock(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_directory_is_free_again_after_the_block_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), lock(tmp_path):
            raise KeyboardInterrupt
    assert (tmp_path / ".lock").read_text() == ""
