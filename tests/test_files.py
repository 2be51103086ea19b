"""`vision.files`: what a reader finds while and after a file is written."""

from pathlib import Path

import pytest

from vision.files import written


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
