"""Run directories that another program is in, or that lost what they need, on the command line."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

from vision.lock import lock

CONFIG = ("configs/vit_ti.yaml", "norm.name=layernorm")


@pytest.fixture(scope="module")
def killed(kill, small, tmp_path_factory) -> Path:
    """A run killed when the last.ckpt of its first epoch was in place and metrics.csv was next."""
    home = tmp_path_factory.mktemp("killed")
    kill([*CONFIG, *small, f"output_dir={home}", "name=run"], saves=1, moment="table")
    return home / "run"


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(killed, tmp_path / "run"))


@pytest.fixture
def resume(forked, small):
    """`tools/train.py --resume` of a run, with what it may not do: (run, code) -> output."""

    def call(run: Path, code: int = 2) -> str:
        where = [f"output_dir={run.parent}", f"name={run.name}"]
        result = forked("tools/train.py", *CONFIG, *small, *where, "--resume", code=code)
        assert "Traceback" not in result.stderr
        return result.stdout + result.stderr

    return call


def test_the_table_has_what_a_checkpoint_counts_as_done(killed: Path) -> None:
    step = torch.load(killed / "last.ckpt", weights_only=True)["global_step"]
    rows = list(csv.DictReader((killed / "metrics.csv").open()))
    assert [row["step"] for row in rows if row["train/loss"]] == [str(step - 1)]


def test_a_run_that_is_training_is_refused_and_its_holder_named(run: Path, resume) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    with lock(run):
        before[".lock"] = (run / ".lock").stat().st_mtime_ns
        assert f"{run}: in use by process " in resume(run)
        assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_a_resumed_run_removes_leftovers_and_lets_go_at_its_end(run: Path, resume) -> None:
    (run / "last.ckpt.tmp").write_bytes(b"half")
    (run / "samples").mkdir()
    (run / "samples" / "step_0000030.png.1234abcd.tmp").write_bytes(b"half")
    count = len(list(run.rglob("*.tmp")))
    assert count == 3  # the kill left one
    output = resume(run, code=0)
    assert f"{run}: 3 half-written *.tmp of a killed process removed" in output
    assert not list(run.rglob("*.tmp"))
    with lock(run):  # not held any more, and a finished run asks for nothing
        assert "has finished already" in resume(run, code=0)
    # then its checkpoints are gone
    for name in ("last.ckpt", "previous.ckpt", "summary.json"):
        (run / name).unlink()
    table = (run / "metrics.csv").read_bytes()
    assert f"{run} was trained in" in resume(run)
    assert (run / "metrics.csv").read_bytes() == table


@pytest.fixture(scope="module")
def rarely_logged(kill, small, tmp_path_factory) -> Path:
    """A run killed in its second epoch, of which metrics.csv has no row yet, nor a validation."""
    home = tmp_path_factory.mktemp("rarely")
    rare = ["trainer.log_every_n_steps=1000", "trainer.val_every_n_epochs=2"]
    often = ["trainer.checkpoint_every_n_steps=25", "trainer.epochs=3"]  # of 39 steps an epoch
    where = [f"output_dir={home}", "name=run"]
    kill([*CONFIG, *small, *rare, *often, *where], saves=3, moment="rename")
    return home / "run"


def test_a_run_that_lost_its_checkpoints_early_in_its_second_epoch_is_refused(
    rarely_logged: Path, forked, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(rarely_logged, tmp_path / "run"))
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert max(int(row["step"]) for row in rows) < 39
    again = [run / "config.yaml", f"output_dir={tmp_path}", "--resume"]
    for name in ("last.ckpt", "previous.ckpt"):
        (run / name).unlink(missing_ok=True)
    kept = {path.name: path.read_bytes() for path in run.glob("[!.]*") if path.is_file()}
    said = forked("tools/train.py", *again, code=2)
    assert f"{run} was trained in" in said.stderr
    for name, content in kept.items():
        assert (run / name).read_bytes() == content, name


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(
    kill, forked, small, tmp_path: Path
) -> None:
    short = ["trainer.log_every_n_steps=1", "data.train_fraction=0.26", "trainer.epochs=1"]
    short += ["trainer.val_every_n_epochs=1"]
    run = [*CONFIG, *small, *short, f"output_dir={tmp_path}", "name=run", "--resume"]
    kill(run, saves=1, moment="rename")  # the table has the whole epoch
    assert not (tmp_path / "run" / "last.ckpt").exists()
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert max(int(row["step"]) for row in rows) == 9  # of steps 0 to 9
    forked("tools/train.py", *run)
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_link_to_storage_that_is_not_there_is_no_new_run(run: Path, resume) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(f"/not_mounted/{name}")
    assert "previous.ckpt: a link to /not_mounted/previous.ckpt, which is not there" in resume(run)
    assert (run / "last.ckpt").is_symlink()


def test_what_is_wrong_with_a_checkpoint_is_named(run: Path, resume) -> None:
    content = torch.load(run / "last.ckpt", weights_only=True)
    del content["global_step"], content["loops"]
    torch.save(content, run / "last.ckpt")
    (run / "previous.ckpt").write_bytes(b"")
    output = resume(run)
    assert "last.ckpt: lacks global_step, loops, expected" in output
    assert "previous.ckpt: empty file" in output


@pytest.mark.parametrize("place", ["file", "proc"])
def test_an_output_that_cannot_be_made_is_one_line(
    forked, small, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    where = {"file": tmp_path / "file", "proc": Path("/proc")}[place]
    result = forked("tools/train.py", *CONFIG, *small, f"output_dir={where}", "name=run", code=2)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert str(where / "run") in line and "Traceback" not in result.stderr
