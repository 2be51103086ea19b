"""`trainer.loggers`: the examples of docs/training.md without a network, and what is refused."""

import json
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
WANDB, MLFLOW = re.findall(r"'(trainer\.loggers=\[.*\])'", PAGE)


@pytest.fixture
def one_epoch(environment: dict[str, str], small: list[str], tmp_path: Path):
    """Train an epoch with a logger of the page, in a folder of its own, with more variables."""

    def run(logger: str, **variables: str) -> None:
        command = [
            sys.executable, ROOT / "tools/train.py", ROOT / "configs/vit_ti.yaml", *small,
            "norm.name=layernorm", "trainer.epochs=1", "name=run", logger,
        ]  # fmt: skip
        alone = environment | variables
        done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / "runs/run/summary.json").read_text())["steps"] == 39

    return run


@pytest.mark.slow
def test_weights_and_biases_writes_without_a_network(one_epoch, tmp_path: Path) -> None:
    one_epoch(WANDB, WANDB_MODE="offline")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 0


@pytest.mark.slow
def test_mlflow_writes_to_a_file_without_a_server(one_epoch, tmp_path: Path) -> None:
    one_epoch(MLFLOW, MLFLOW_DISABLE_TELEMETRY="true")
    summary = json.loads((tmp_path / "runs/run/summary.json").read_text())
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        runs = database.execute("SELECT name, status FROM runs").fetchall()
        metrics = dict(database.execute("SELECT key, value FROM latest_metrics"))
    assert runs == [("vit_ti_dyt", "FINISHED")]
    final = summary["metrics"]["test/top1"]
    assert metrics["test/top1"] == pytest.approx(final, abs=1e-3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{class: pytorch_lightning.loggers.NoLogger}", "no attribute 'NoLogger'"),
        ("{class: loggers.Wandb}", "No module named 'loggers'"),
        ("{class: pytorch_lightning.loggers.CSVLogger, folder: x}", "argument 'folder'"),
        ("{project: x}", "expected `class:`"),
    ],
)
def test_a_wrong_logger_is_refused_by_its_key_before_there_is_a_run(
    entry: str, message: str, forked, small: list[str], tmp_path: Path
) -> None:
    where = [f"trainer.loggers=[{entry}]", f"output_dir={tmp_path}", "name=run"]
    said = forked("tools/train.py", "configs/vit_ti.yaml", *small, *where, code=2)
    line = said.stderr.splitlines()[-1]
    assert line.startswith("error: command line: trainer.loggers = ") and message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "setting",
    [
        "trainer.loggers=[wandb]", "trainer.loggers=wandb", "trainer.loggers={class: wandb}",
        "trainer.loggers=[3]", "trainer.loggers=[[{class: wandb}]]", "optim.betas=[{a: 1}]",
        "data.mean=[[0.5]]", "evaluation.metrics=[{name: fid}]", "evaluation.metrics=fid",
    ],
)  # fmt: skip
def test_a_list_of_something_else_is_refused_with_what_was_given_and_is_expected(
    setting: str, forked, tmp_path: Path
) -> None:
    key, _, given = setting.partition("=")
    items = {"trainer.loggers": "keys and values, as [{class: ...}]", "evaluation.metrics": "names"}
    said = forked(
        "tools/train.py", "configs/vit_ti.yaml", setting, f"output_dir={tmp_path}", code=2
    )
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"error: command line: {key} = ")
    assert given.replace(" ", "") in line.replace("'", "").replace(" ", "")
    assert f": expected a list of {items.get(key, 'numbers')}; the default is" in line
    assert not list(tmp_path.iterdir())
