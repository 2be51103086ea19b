"""`tools/compare.py` and `tools/report.py` through their command lines, on real small runs."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

GRID = """
seeds: [0]
norms: {{layernorm: {{}}, dyt: {{}}, seednorm: {{alpha_init: .inf}}}}  # the last diverges
tasks:
  classify:
    configs: [{root}/configs/vit_ti.yaml]
    overrides:
      [{small}, trainer.epochs=1, optim.warmup_epochs=0, trainer.diagnostics_every_n_steps=5]
"""


@pytest.fixture(scope="module")
def compared(
    forked, small, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, int]:
    """A comparison killed after its first run and started again: its directory, the second
    call's output, and when the first run's summary was written."""
    home = tmp_path_factory.mktemp("compare")
    grid = home / "grid.yaml"
    grid.write_text(GRID.format(root=ROOT, small=", ".join(small)))
    arguments = [str(grid), f"output_dir={home}"]
    process = subprocess.Popen(
        [sys.executable, "tools/compare.py", *arguments], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().startswith("finished  classify/layernorm_seed0")
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    folder = home / "grid"
    first = (folder / "classify/layernorm_seed0/summary.json").stat().st_mtime_ns
    return folder, forked("tools/compare.py", *arguments).stdout, first


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was(compared: tuple[Path, str, int]) -> None:
    folder, output, first = compared
    assert (folder / "classify/layernorm_seed0/summary.json").stat().st_mtime_ns == first
    states = {o["cell"]: o["state"] for o in json.loads((folder / "status.json").read_text())}
    assert states == {
        "classify/layernorm_seed0": "finished",
        "classify/dyt_seed0": "finished",
        "classify/seednorm_seed0": "diverged",
    }
    assert "diverged  classify/seednorm_seed0" in output


@pytest.mark.slow
def test_the_report_shows_the_metrics_of_the_runs_and_needs_no_other_file(
    tool, compared: tuple[Path, str, int], tmp_path: Path
) -> None:
    folder, _, _ = compared
    tool("report", folder, "--output", tmp_path)
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    for row in rows[:2]:
        run = folder / "classify" / f"{row['norm']}_seed0"
        summary = json.loads((run / "summary.json").read_text())
        assert float(row["mean"]) == summary["metrics"]["test/top1"]
        assert int(row["parameters"]) == summary["parameters"]
    assert rows[1]["verdict"] == "undecided"  # one seed decides nothing
    assert [row["runs"] for row in rows[2:]] == ["0 of 1, 1 diverged"]
    page = (tmp_path / "report.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"]{9})', page)) == {"data:imag"}
    assert "http" not in re.sub(r"data:image/png;base64,[\w+/=]+", "", page)
    assert page.count("data:image/png") >= 4  # dots, curves, heat maps of both norms
    assert "first seen in" in page or "the gradient of" in page  # why the broken one stopped
    for ending in ("md", "tex"):
        assert "dyt" in (tmp_path / f"report.{ending}").read_text()


def test_the_shipped_grid_can_be_run_or_handed_to_slurm(tool, tmp_path: Path) -> None:
    result = tool(
        "compare", "configs/compare/digits.yaml", f"output_dir={tmp_path}",
        "--sbatch=--gres=gpu:1",
    )  # fmt: skip
    assert "submit.sh" in result.stdout
    script = (tmp_path / "digits" / "classify.sbatch").read_text()
    assert "#SBATCH --gres=gpu:1" in script
    assert "#SBATCH --array=0-14" in script
    assert script.count("tools/train.py") == 15
    subprocess.run(["bash", "-n", tmp_path / "digits" / "classify.sbatch"], check=True)


def test_a_cell_that_cannot_run_stops_the_comparison_before_it_starts(tool, tmp_path: Path) -> None:
    result = tool(
        "compare", "configs/compare/digits.yaml", f"output_dir={tmp_path}",
        "norms={layernorm: {}, seednorm: {num_heads: 7}}", code=2,
    )  # fmt: skip
    assert "num_heads" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_a_comparison_is_refused(forked, tmp_path: Path) -> None:
    assert "compare.yaml" in forked("tools/report.py", tmp_path, code=2).stderr
