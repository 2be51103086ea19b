"""Runs that stop and go on, through the command line."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from vision.files import file_hash

CONFIG = ("configs/vit_ti.yaml", "configs/norm/seednorm.yaml")

# runs a script, and writes a line to a file whenever it opens a last.ckpt
LOGGED = """
import runpy, sys

_, log, *sys.argv = sys.argv

def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("/last.ckpt"):
        with open(log, "a") as file:
            print("opened", file=file)

sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
READ = """
import sys
from pathlib import Path
from vision.checkpoints.read import read_checkpoint

read_checkpoint(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_a_run_of_steps_ends_and_resumes_within_an_epoch(
    forked, kill, assert_same_training, small, tmp_path: Path
) -> None:
    arguments = [
        *CONFIG, *small, "norm.options.num_heads=4", "trainer.max_steps=45",
        "trainer.batch_size_device=16", "trainer.checkpoint_every_n_steps=4",
        "optim.warmup_epochs=2", "trainer.val_every_n_epochs=3", "name=run",
    ]  # fmt: skip
    arguments.remove("trainer.epochs=2")
    whole = forked("tools/train.py", *arguments, f"output_dir={tmp_path / 'whole'}")
    assert "length  45 steps: 2 epochs of 39, the last cut to 6; all of it warm-up" in whole.stdout
    killed = [*arguments, f"output_dir={tmp_path / 'killed'}", "--resume"]
    kill(killed, saves=3)
    kill(killed, saves=8)  # at step 40, in the second epoch
    forked("tools/train.py", *killed)
    assert_same_training(tmp_path / "whole" / "run", tmp_path / "killed" / "run")
    summary = json.loads((tmp_path / "whole" / "run" / "summary.json").read_text())
    assert summary["steps"] == 45
    rows = list(csv.DictReader((tmp_path / "whole" / "run" / "metrics.csv").open()))
    validated = [row["step"] for row in rows if row["val/top1"]]
    assert validated == ["44"]  # the last epoch always is
    assert rows[-1]["train/loss"] or rows[-2]["train/loss"]
    taken = torch.load(tmp_path / "whole" / "run" / "last.ckpt", weights_only=True)
    assert taken["lr_schedulers"][0]["t_initial"] == 1


@pytest.mark.slow
def test_ctrl_c_saves_and_what_changes_no_result_may_change(
    forked, kill, small, trained: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start.ckpt"
    shutil.copy(trained / "last.ckpt", start)
    arguments = [
        *CONFIG, *small, "norm.options.num_heads=4", f"model.init_from={start}",
        "trainer.checkpoint_every_n_steps=3", "data.test_split=null", f"output_dir={tmp_path}",
        "name=run", "--resume",
    ]  # fmt: skip
    kill(arguments, saves=2, kind="SIGINT")
    last = tmp_path / "run" / "last.ckpt"
    stopped = torch.load(last, weights_only=True)["global_step"]
    start.unlink()
    logged, read = tmp_path / "logged.py", tmp_path / "read.py"
    logged.write_text(LOGGED)
    read.write_text(READ)
    once, resumed = tmp_path / "once.txt", tmp_path / "resumed.txt"
    forked(logged, once, read, last)
    refused = forked("tools/train.py", *arguments, "optim.lr=1e-4", code=2)
    assert "optim.lr = 0.0001" in refused.stderr
    changes = ["trainer.log_every_n_steps=7", "model.init_from=elsewhere.ckpt"]
    output = forked(logged, resumed, "tools/train.py", *arguments, *changes).stdout
    assert resumed.read_text() == once.read_text() != ""  # checked and loaded in one reading
    assert "trainer.log_every_n_steps = 7, was 10" in output
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert [entry["resumed_from_step"] for entry in starts] == [None, stopped]
    expected = {
        "trainer.log_every_n_steps": [10, 7],
        "model.init_from": [str(start), "elsewhere.ckpt"],
    }
    assert starts[1]["changed"] == expected and starts[0]["changed"] == {}
    assert "no data.test_split: the last weights on the validation split" in output
    assert "val/top1 " in output and "test/" not in output


@pytest.mark.slow
def test_a_run_that_was_moved_keeps_its_best_weights(forked, kill, small, tmp_path: Path) -> None:
    arguments = [*CONFIG, *small, "norm.options.num_heads=4", "trainer.epochs=3"]
    kill([*arguments, f"output_dir={tmp_path / 'before'}", "name=run"], saves=2)
    (tmp_path / "before").rename(tmp_path / "after")
    run = tmp_path / "after" / "run"
    content = torch.load(run / "last.ckpt", weights_only=True)
    (best,) = (s for key, s in content["callbacks"].items() if key.startswith("ModelCheckpoint"))
    assert Path(best["best_model_path"]).parent.parent == tmp_path / "before"
    best["best_model_score"].fill_(101.0)  # percent: no later epoch is better
    best["kth_value"] = best["best_model_score"]
    best["best_k_models"] = {best["best_model_path"]: best["best_model_score"]}
    torch.save(content, run / "last.ckpt")
    before = file_hash(run / "best.ckpt")
    forked("tools/train.py", *arguments, f"output_dir={tmp_path / 'after'}", "name=run", "--resume")
    assert (run / "summary.json").exists()
    assert file_hash(run / "best.ckpt") == before
    last = torch.load(run / "last.ckpt", weights_only=True)["callbacks"]
    (best,) = (state for key, state in last.items() if key.startswith("ModelCheckpoint"))
    assert float(best["best_model_score"]) == 101.0
    assert best["best_model_path"] == str(run / "best.ckpt")
