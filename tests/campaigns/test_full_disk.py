"""A disk that fills up at any file of a run: one line, nothing lost, and it goes on with space."""

import os
import shutil
from pathlib import Path
from typing import Any

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
        assert said.returncode in (0, 1)
        if said.returncode:
            assert said.stderr.splitlines()[-1].startswith("error: ")
            assert "Traceback" not in said.stderr and "No space left" in said.stderr
        filler.unlink()
        forked("tools/train.py", *short_run, f"output_dir={disk}")
        assert_same_training(whole, disk / "run")
        shutil.rmtree(disk / "run")


@pytest.mark.slow
def test_a_data_set_that_does_not_fit_is_refused_before_it_is_unpacked(
    disk: Path, forked, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = images_table([os.urandom(2**20) for _ in range(20)])
    (tmp_path / "set").mkdir()
    parquet.write_table(table, tmp_path / "set" / "train-0.parquet")
    data = [f"data.name=hfds/{tmp_path / 'set'}", f"data.root={disk}", f"output_dir={tmp_path}"]
    said = forked("tools/train.py", "configs/vit_ti.yaml", *data, "name=run", code=2)
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    assert "parquet files unpack to 20,9" in line and f"{disk} has " in line
    assert f"data.name=hfids/{tmp_path / 'set'}" in line
    assert beside_locks(disk) == [] and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_files_of_a_data_set_that_unpack_to_far_more_than_they_hold_are_refused(
    forked, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = images_table([bytes(2**26)])
    (tmp_path / "set").mkdir()
    file = tmp_path / "set" / "train-0.parquet"
    options = {"compression": "zstd", "use_dictionary": False}
    with parquet.ParquetWriter(file, table.schema, **options) as writer:
        for _ in range(17):
            writer.write_table(table)
    data = [f"data.name=hfds/{file.parent}", f"data.root={tmp_path}", f"output_dir={tmp_path}"]
    said = forked("tools/train.py", "configs/vit_ti.yaml", *data, "name=run", code=2)
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    assert "unpack to 1,14" in line and f"and have {file.stat().st_size:,}: no images" in line
    assert beside_locks(tmp_path) == ["set"]


def images_table(images: list[bytes]) -> Any:
    """A row for each, all of one class."""
    pyarrow = pytest.importorskip("pyarrow")
    column = [{"bytes": image, "path": "a.png"} for image in images]
    return pyarrow.table({"image": column, "label": [0] * len(images)})


def beside_locks(folder: Path) -> list[str]:
    """What is in it but for the empty files by which the datasets library locks its folders."""
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]
