"""Tuning, through the command line of `tools/compare.py`, on real small runs."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from vision.config import load_config
from vision.training.callbacks.test_predictions import read_predictions

ROOT = Path(__file__).parents[2]
GRID = """
seeds: [0]
norms: {{layernorm: {{}}}}
variants:
  heads: {{norm: seednorm, options: {{num_heads: 3}}, overrides: [optim.weight_decay=0]}}
tasks:
  classify:
    configs: [{root}/configs/vit_ti.yaml]
    overrides: [{small}, trainer.epochs=1, optim.warmup_epochs=0]
    columns: [val/loss]
tune: {{space: {{optim.lr: [1.0e-6, 3.0e-4]}}, seeds: [5]}}
"""


@pytest.fixture(scope="module")
def tuned(compare, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    home = tmp_path_factory.mktemp("tuned")
    kept = [text for text in small if not text.startswith(("optim.", "trainer.epochs"))]
    (home / "grid.yaml").write_text(GRID.format(root=ROOT, small=", ".join(kept)))
    arguments = [home / "grid.yaml", f"output_dir={home}", "--jobs", 2]
    compare(*arguments)
    return home / "grid", arguments


@pytest.mark.slow
def test_the_best_trial_is_trained_again_with_a_fresh_seed_and_tested_once(
    tuned: tuple[Path, list],
) -> None:
    folder, _ = tuned
    for label in ("layernorm", "heads"):
        chosen = yaml.safe_load((folder / f"classify/tuned/{label}.yaml").read_text())
        assert chosen["optim"] == {"lr": 3e-4}
        run = folder / f"classify/{label}_seed0"
        config = load_config([run / "config.yaml"]).config
        assert (config.optim.lr, config.seed) == (3e-4, 0)
        assert config.norm.options == ({} if label == "layernorm" else {"num_heads": 3})
        target, predicted = read_predictions(run / "test_predictions.npz")
        metrics = json.loads((run / "summary.json").read_text())["metrics"]
        assert metrics["test/top1"] == pytest.approx(100 * (target == predicted).mean(), abs=1e-4)
        trials = list((folder / "classify").glob(f"{label}_trial*_seed5"))
        assert len(trials) == 2
        for trial in trials:  # the test split is not even opened
            assert load_config([trial / "config.yaml"]).config.data.test_split is None
            assert not (trial / "test_predictions.npz").exists()
    page = (folder / "report.html").read_text()
    assert "optim.lr = 0.0003, the highest tried" in page
    rows = list(csv.DictReader((folder / "report.csv").open()))
    assert [row["norm"] for row in rows] == ["layernorm", "heads"]
    assert all(float(row["val/loss"]) > 0 for row in rows)


@pytest.mark.slow
def test_another_search_keeps_its_trials_and_refuses_runs_of_another_winner(
    tuned: tuple[Path, list], compare
) -> None:
    folder, arguments = tuned
    before = {p: p.stat().st_mtime_ns for p in folder.glob("classify/*_trial*/summary.json")}
    # one trial is new; the old winner's runs are there, and it is not in this search at all
    other = "tune.space={optim.lr: [1.0e-6, 1.0e-5]}"
    error = compare(*arguments, other, code=2).stderr
    assert re.search(r"optim.lr = 0.0003 in the run, 1(.0)?e-0[56] in the grid", error), error
    assert "--rerun" in error
    after = {p: p.stat().st_mtime_ns for p in folder.glob("classify/*_trial*/summary.json")}
    assert after.items() > before.items() and len(after) == 6


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sbatch=--gres=gpu:1"], "--sbatch: the best trials are chosen between two jobs"),
        (["tasks.classify.columns=[val/lose]"], "columns = 'val/lose': .*did you mean 'val/loss'"),
        (["tune.space={optim.lrr: [1, 2]}"], "layernorm_trial.*unknown key 'optim.lrr'"),
        (["tune.seeds=[0]"], "tune.seeds = .0.: 0 is among seeds too"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_the_first_cell(
    forked, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "grid.yaml").write_text(GRID.format(root=ROOT, small="trainer.progress_bar=false"))
    call = ["tools/compare.py", tmp_path / "grid.yaml", f"output_dir={tmp_path}/out"]
    error = forked(*call, *arguments, code=2).stderr
    assert re.search(expected, error), error
    assert not (tmp_path / "out").exists()


def test_a_split_that_follows_the_seed_is_refused_beside_trials(
    forked, small: list[str], tmp_path: Path
) -> None:
    kept = [text for text in small if not text.startswith(("optim.", "trainer.epochs"))]
    text = GRID.format(root=ROOT, small=", ".join(kept))
    overlay = f"[{ROOT}/configs/vit_ti.yaml, {ROOT}/configs/data/split_by_seed.yaml]"
    (tmp_path / "grid.yaml").write_text(text.replace(f"[{ROOT}/configs/vit_ti.yaml]", overlay))
    said = forked("tools/compare.py", tmp_path / "grid.yaml", f"output_dir={tmp_path}", code=2)
    (line,) = said.stderr.splitlines()
    assert "data.split_seed = 0: other runs of this task split by 5, so that images" in line
    assert not (tmp_path / "grid").exists()
