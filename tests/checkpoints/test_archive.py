"""Checkpoints are whole or refused, and a failed write leaves the one before."""

import multiprocessing
import random
import resource
import time
from pathlib import Path

import pytest
import torch

from vision.checkpoints.archive import check_whole, save_whole
from vision.checkpoints.read import read_checkpoint, read_record
from vision.errors import UnwritableError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "a.ckpt"
    save_whole({"weight": torch.arange(20_000.0), "step": 3}, file)
    return file


def test_what_is_saved_is_read_back(saved: Path) -> None:
    content = read_checkpoint(saved)
    assert torch.equal(content["weight"], torch.arange(20_000.0)) and content["step"] == 3
    assert [p.name for p in saved.parent.iterdir()] == ["a.ckpt"]


def test_one_changed_byte_of_the_weights_is_found(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    at = content.find(torch.arange(500.0, 600.0).numpy().tobytes())
    content[at + 7] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.ckpt: damaged"):
        read_checkpoint(saved)


def test_the_record_of_a_run_is_read_without_its_tensors(tmp_path: Path) -> None:
    file, weight = tmp_path / "a.ckpt", torch.arange(20_000.0)
    save_whole({"weight": weight, "vision": {"class_names": ["cat", "dog"]}}, file)
    content = bytearray(file.read_bytes())
    content[content.find(weight[500:600].numpy().tobytes()) + 7] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):  # as all of it is read
        read_checkpoint(file)
    assert read_record(file)["class_names"] == ["cat", "dog"]
    save_whole({"weight": weight}, file)
    with pytest.raises(ValueError, match="records no configuration"):
        read_record(file)


def test_no_cut_is_ever_loaded(saved: Path) -> None:
    whole = saved.read_bytes()
    draw = random.Random(0)
    for length in [0, 1, 100, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(40))]:
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.ckpt"):
            read_checkpoint(saved)


def test_random_damage_is_refused_or_harmless(saved: Path) -> None:
    whole = saved.read_bytes()
    draw, refused = random.Random(1), 0
    for _ in range(200):
        content = bytearray(whole)
        content[draw.randrange(len(whole))] = draw.randrange(256)
        saved.write_bytes(content)
        try:
            read = read_checkpoint(saved)
        except ValueError:
            refused += 1
        else:  # the padding between entries, or the same byte
            assert torch.equal(read["weight"], torch.arange(20_000.0)) and read["step"] == 3
    assert refused > 180


def test_a_write_that_fails_half_way_leaves_what_was_there(saved: Path) -> None:
    before = saved.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # no file may grow beyond
    try:
        with pytest.raises(UnwritableError, match="the checkpoint before it is intact"):
            save_whole({"weight": torch.zeros(20_000)}, saved, saved.with_name("previous.ckpt"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["a.ckpt"]
    check_whole(saved)


def _save_without_end(file: Path) -> None:
    while True:
        save_whole({"weight": torch.zeros(20_000)}, file, file.with_name("previous.ckpt"))


def test_a_kill_while_writing_damages_neither_last_nor_previous(tmp_path: Path) -> None:
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    for _ in range(20):
        writer = multiprocessing.get_context("fork").Process(target=_save_without_end, args=[last])
        writer.start()
        while not previous.exists():
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        writer.kill()
        writer.join()
        check_whole(previous)
        if last.exists():  # all but the moment between two renames
            check_whole(last)
            assert not last.samefile(previous)
        previous.unlink()
