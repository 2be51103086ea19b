"""`vision.compare.progress`: the line that says how far a comparison is."""

import pytest

from vision.compare.progress import Progress


def test_counts_and_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("vision.compare.progress.time.monotonic", lambda: clock[0])
    tasks = {f"a/{i}": "a" for i in range(5)} | {"b/0": "b"}
    progress = Progress(tasks, at_once=2)
    progress.ended("a/0", "failed", 5.0)
    assert "1 running" in progress.started("a/1")
    assert (
        progress.started("a/2")
        == str(progress)
        == ("0 of 6 done, 1 failed, 2 running, time left unknown: no run of a, b has finished")
    )
    progress.ended("a/1", "finished", 600.0)
    progress.ended("a/0", "diverged", 50.0)  # tried again
    clock[0] = 240.0
    # 3 of 600 s, one of which runs for 240 s, beside each other: (1800 - 240) / 2 = 13 minutes
    assert str(progress) == (
        "1 of 6 done, 1 diverged, 1 running, about 13 min left and b, of which none has ended yet"
    )
    progress.ended("b/0", "finished", 60.0)
    for cell in ("a/2", "a/3", "a/4"):
        progress.ended(cell, "finished", 600.0)
    assert str(progress) == "5 of 6 done, 1 diverged"
