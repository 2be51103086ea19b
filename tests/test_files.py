"""`vision.files`: what a reader finds while and after a file is written."""

import json
import math
from pathlib import Path

import pytest

from vision.files import check_writable, write_json, written
from vision.notices import metric_text


def test_a_reader_finds_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with written(path) as temporary, temporary.open("w") as file:
        file.write("new")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path and temporary.suffix == ".tmp"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path, error: BaseException) -> None:
    with written(path) as temporary:
        temporary.write_text("half")
        raise error


def test_an_error_or_an_interrupt_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    for error in (OSError("disk full"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write_half(path, error)
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError), written(path):
        pass  # nothing was written
    assert path.read_text() == "old"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with written(path) as first, written(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last to end


def test_json_has_no_nan_and_a_line_says_what_is_null(tmp_path: Path, capsys) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"loss": math.nan, "top1": 1.5, "rows": [0.0, (math.inf, 2)]})
    text = path.read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found == {"loss": None, "top1": 1.5, "rows": [0.0, [None, 2]]}
    assert capsys.readouterr().err == f"{path}: not finite, null there: loss, rows[1][0]\n"


def test_what_cannot_be_written_is_known_before_it_is_computed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    for path in (file / "a.json", tmp_path):
        with pytest.raises(OSError, match=str(tmp_path)):
            check_writable(path)
    check_writable(tmp_path / "new" / "a.json")
    check_writable(file)
    assert file.read_text() == "kept"
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "new"]


def test_a_metric_that_is_not_finite_is_never_printed_as_one() -> None:
    assert metric_text(12.34567) == "12.35"
    assert {metric_text(value) for value in (None, math.nan, math.inf)} == {"not finite"}
