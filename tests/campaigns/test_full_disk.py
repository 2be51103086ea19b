"""A disk that fills up at any file of a run: one line, nothing lost, and it goes on with space."""

import shutil
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.campaign
def test_a_run_on_a_full_disk_ends_in_a_line_and_goes_on_with_space(
    disk: Path, number, short_run: list[str], forked, assert_same_training, tmp_path: Path
) -> None:
    forked("tools/train.py", *short_run, f"output_dir={tmp_path / 'whole'}")
    whole = tmp_path / "whole" / "run"
    size = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    steps = number(2, 20)
    for left in (size * part // steps for part in range(number(2, 1), steps + 1)):
        filler = disk / "filler"
        filler.write_bytes(bytes(16 * 2**20 - left - 4096 * 8))
        said = forked("tools/train.py", *short_run, f"output_dir={disk}", code=None)
        assert said.returncode in (0, 1, 2)
        if said.returncode:
            assert said.stderr.splitlines()[-1].startswith("error: ")
            assert "Traceback" not in said.stderr and "No space left" in said.stderr
        filler.unlink()
        forked("tools/train.py", *short_run, f"output_dir={disk}")
        assert_same_training(whole, disk / "run")
        shutil.rmtree(disk / "run")
