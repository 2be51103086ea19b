"""`trainer.loggers`: the example of docs/training.md without a network, and what is refused."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/training.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"'(trainer\.loggers=\[.*\])'", PAGE)


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None,
    reason="wandb is no dependency: pip install 'vision[loggers]'",
)
def test_the_example_writes_without_a_network(
    environment: dict[str, str], small: list[str], tmp_path: Path
) -> None:
    command = [
        sys.executable, ROOT / "tools/train.py", ROOT / "configs/vit_ti.yaml", *small,
        "norm.name=layernorm", "trainer.epochs=1", "name=run", EXAMPLE,
    ]  # fmt: skip
    alone = environment | {"WANDB_MODE": "offline"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "runs/run/summary.json").read_text())["steps"] == 39
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert file.stat().st_size > 0


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
