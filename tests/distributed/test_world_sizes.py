"""A recipe gives the same results in 1, 2 and 4 processes, by any strategy, resumed or not."""

import csv
from pathlib import Path

import pytest
import torch

from vision.checkpoints.read import read_checkpoint
from vision.checkpoints.sharded import is_sharded

pytestmark = pytest.mark.slow
SEVERAL = {  # run -> that of the same recipe in one process
    "classify_2": "classify_1",
    "classify_4": "classify_1",
    "mae_2": "mae_1",
    "dit_2": "dit_1",
    "batch_2": "batch_1",
    "power_2": "power_1",
}
RESUMED = {"mae_2_in_1": "mae_1", "classify_1_in_2": "classify_1", "power_2_in_1": "power_1"}
SAME = {"atol": 1e-5, "rtol": 0}  # float32, 20 steps
UNLIKE = ("train/images_per_sec", "train/data_wait")  # measured by a clock
# of runs that accumulate gradients it is the loss of the last part of a step
ACCUMULATED = {"classify_2": ("train/loss_step",), "classify_1_in_2": ("train/loss_step",)}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_metrics(
    found: list[dict[str, str]], expected: list[dict[str, str]], but: tuple[str, ...] = ()
) -> None:
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    compared = 0
    for ours, theirs in zip(found, expected, strict=True):
        for key, value in theirs.items():
            if value and not key.startswith((*UNLIKE, *but)):
                assert float(ours[key]) == pytest.approx(float(value), abs=1e-5, rel=1e-5), key
                compared += 1
    assert compared > 10


@pytest.mark.parametrize(("run", "whole"), SEVERAL.items())
def test_devices_do_not_change_gradients_metrics_or_weights(
    assert_same_state, runs: Path, run: str, whole: str
) -> None:
    one, several = runs / whole, runs / run
    assert_same_state(read_checkpoint(several / "last.ckpt"), read_checkpoint(one / "last.ckpt"))
    assert_same_metrics(rows(several), rows(one), ACCUMULATED.get(run, ()))
    best, expected = (read_checkpoint(run / "best.ckpt")["state_dict"] for run in (several, one))
    for name, tensor in expected.items():
        torch.testing.assert_close(best[name], tensor, **SAME, msg=name)


@pytest.mark.parametrize(("resumed", "whole"), RESUMED.items())
def test_a_run_resumes_with_other_devices_and_ends_the_same(
    assert_same_state, runs: Path, resumed: str, whole: str
) -> None:
    start = read_checkpoint(runs / resumed.rpartition("_in_")[0] / "previous.ckpt")
    assert start["global_step"] == 14  # the middle of the second epoch
    found = read_checkpoint(runs / resumed / "last.ckpt")
    assert_same_state(found, read_checkpoint(runs / whole / "last.ckpt"))
    after = [row for row in rows(runs / whole) if int(row["step"]) > 14]
    again = [row for row in rows(runs / resumed) if int(row["step"]) > 14]
    assert_same_metrics(again, after, ACCUMULATED.get(resumed, ()))


def test_sharded_checkpoints_are_folders_and_full_ones_files(runs: Path) -> None:
    names = ("last.ckpt", "previous.ckpt", "best.ckpt")
    assert all(is_sharded(runs / "mae_2" / name) for name in names)
    assert all((runs / "classify_4" / name).is_file() for name in names)
    assert not list(runs.glob("*/*.tmp"))


def test_a_part_that_was_changed_is_found(runs: Path) -> None:
    folder = runs / "mae_2" / "last.ckpt"
    part = sorted(folder.glob("*.safetensors"))[-1]
    whole = part.read_bytes()
    try:
        part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(ValueError, match=f"{part.name} does not match"):
            read_checkpoint(folder)
        part.unlink()
        with pytest.raises(ValueError, match=f"{part.name} is missing"):
            read_checkpoint(folder)
    finally:
        part.write_bytes(whole)


def test_diagnostics_of_sharded_norms_cover_all_processes(runs: Path) -> None:
    with (runs / "classify_4" / "diagnostics.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["step"] for row in written] == ["0", "10"]
    # ones at the start: the norm of the whole vector of 48, not of a quarter of it
    weight = read_checkpoint(runs / "classify_1" / "last.ckpt")["state_dict"]["model.norm.gamma"]
    assert float(written[0]["norm/norm_gamma"]) == pytest.approx(len(weight) ** 0.5, rel=1e-5)
