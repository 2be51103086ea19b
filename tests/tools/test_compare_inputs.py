"""What `tools/compare.py` and `tools/report.py` refuse before anything runs, and job scripts."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_shipped_grid_can_be_run_or_handed_to_slurm(forked, tmp_path: Path) -> None:
    result = forked(
        "tools/compare.py", "configs/compare/digits.yaml", f"output_dir={tmp_path}",
        "tasks.classify.tune=null", "--sbatch=--gres=gpu:1",
    )  # fmt: skip
    assert "submit.sh" in result.stdout
    script = (tmp_path / "digits" / "classify.sbatch").read_text()
    assert "#SBATCH --gres=gpu:1" in script
    assert "#SBATCH --array=0-9" in script
    assert script.count("tools/train.py") == 10
    subprocess.run(["bash", "-n", tmp_path / "digits" / "classify.sbatch"], check=True)


def test_a_cell_that_cannot_run_stops_the_comparison_before_it_starts(
    forked, tmp_path: Path
) -> None:
    result = forked(
        "tools/compare.py", "configs/compare/digits.yaml", f"output_dir={tmp_path}",
        "norms={layernorm: {}, seednorm: {num_heads: 7}}", code=2,
    )  # fmt: skip
    assert "num_heads" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_a_comparison_is_refused(forked, tmp_path: Path) -> None:
    assert "compare.yaml" in forked("tools/report.py", tmp_path, code=2).stderr


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("norms={layernorm: {}, dyt: {alpha: 1}}", "classify/dyt_seed0: .*alpha"),
        ("tasks.classify.metric=test/top2", "metric = 'test/top2': .*did you mean 'test/top5'"),
        ("tasks.mae.metric=val/knn", "mae/layernorm_seed0: metric = 'val/knn'"),
        ("tasks.dit.metric=val/fid", "dit/layernorm_seed0: metric = 'val/fid'"),
    ],
)
def test_unknown_options_and_metrics_are_found_before_the_first_cell(
    forked, tmp_path: Path, change: str, expected: str
) -> None:
    arguments = ["configs/compare/digits.yaml", f"output_dir={tmp_path}", change]
    arguments += ["seeds=[0]", "tasks.classify.tune=null"]
    assert re.search(expected, forked("tools/compare.py", *arguments, code=2).stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("grid", "key"), [("digits", "model.init_from"), ("mnist5k_dit", "evaluation.extractor")]
)
def test_checkpoints_that_no_cell_makes_are_looked_for_before_the_first_cell(
    forked, tmp_path: Path, grid: str, key: str
) -> None:
    value = tmp_path / "gone" if key == "model.init_from" else f"run:{tmp_path / 'gone'}"
    error = forked(
        "tools/compare.py", f"configs/compare/{grid}.yaml", f"output_dir={tmp_path}",
        f"overrides=[{key}={value}]", code=2,
    ).stderr  # fmt: skip
    assert f"{key}: {tmp_path / 'gone'}: no such checkpoint" in error
    assert list(tmp_path.iterdir()) == []


def test_the_documented_grid_with_a_norm_of_ones_own_can_be_run(forked, tmp_path: Path) -> None:
    def block(page: str, start: str) -> str:
        return start + (ROOT / page).read_text().split(start, 1)[1].split("```", 1)[0]

    (tmp_path / "my_norms.py").write_text(block("docs/library.md", "# my_norms.py"))
    grid = block("docs/comparison.md", "norms: {layernorm: {}, scale: {}}")
    assert "norm.module=my_norms.py" in grid
    (tmp_path / "grid.yaml").write_text(grid.replace("../", f"{ROOT}/configs/"))
    call = ["tools/compare.py", "grid.yaml", "--sbatch=--gres=gpu:1"]
    error = forked(*call, "norms.scale.power=2", code=2, folder=tmp_path).stderr
    assert re.search("classify/scale_seed0: .*power", error)
    forked(*call, folder=tmp_path)  # after all models were built
    script = (tmp_path / "runs/grid/classify.sbatch").read_text()
    assert "norm.module=my_norms.py norm.name=scale" in script
