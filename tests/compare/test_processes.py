"""`vision.compare.processes` with programs that take long to end: stopped, killed, orphaned."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vision.compare.processes import Ended, Job, run_jobs

ROOT = Path(__file__).parents[2]
# says that it began, and on SIGTERM takes a moment to save, as a training does
TRAIN = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path(sys.argv[1] + ".saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv[1] else save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
COMPARE = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from vision.compare.processes import Job, Terminated, run_jobs, sigterm_raises
home = Path(sys.argv[1])
jobs = {n: Job([sys.executable, "-c", sys.argv[2], str(home / n)], home / f"{n}.txt")
        for n in sys.argv[3:]}
try:
    with sigterm_raises():
        run_jobs(jobs, 2, os.environ, lambda name: None, lambda name, ended: None)
except (Terminated, KeyboardInterrupt) as error:
    print(type(error).__name__, sorted(path.name for path in home.glob("*.saved")))
"""


def wait_for(*paths: Path) -> None:
    end = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, paths
        time.sleep(0.02)


def start(home: Path, *names: str) -> subprocess.Popen:
    """A process that runs jobs called `names`, two at a time, when the first two have begun."""
    process = subprocess.Popen(
        [sys.executable, "-c", COMPARE, str(home), TRAIN, *names],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    wait_for(*(home / name for name in names[:2]))
    return process


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_what_runs_waits_until_it_saved_and_starts_nothing(
    tmp_path: Path, kind: signal.Signals
) -> None:
    process = start(tmp_path, "a", "b", "c")
    os.killpg(process.pid, kind)  # as a terminal does it: to the whole group
    out, err = process.communicate(timeout=20)
    names = {signal.SIGTERM: "Terminated", signal.SIGINT: "KeyboardInterrupt"}
    assert out == f"{names[kind]} ['a.saved', 'b.saved']\n"
    assert "stops 2 runs" in err
    assert not (tmp_path / "c").exists()


def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    process = start(tmp_path, "a", "deaf")
    process.send_signal(signal.SIGINT)
    wait_for(tmp_path / "a.saved")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=20)
    assert out == "Killed ['a.saved']\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the signal of a dead parent is Linux's")
def test_what_a_killed_program_ran_saves_and_ends(tmp_path: Path) -> None:
    process = start(tmp_path, "a", "b")
    process.kill()
    process.wait()
    wait_for(tmp_path / "a.saved", tmp_path / "b.saved")


def test_exit_codes_and_what_this_call_printed_are_reported(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "log.txt"
    found: dict[str, Ended] = {}
    began: list[str] = []
    for word, code in (("first", 0), ("second", 3)):
        job = Job([sys.executable, "-c", f"import sys; print('{word}'); sys.exit({code})"], log)
        run_jobs({word: job}, 1, os.environ, began.append, found.__setitem__)
    assert began == ["first", "second"]
    assert [(e.code, e.output) for e in found.values()] == [(0, "first\n"), (3, "second\n")]
    assert log.read_text() == "first\nsecond\n"
