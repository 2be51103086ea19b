"""`tools/compare.py` and `tools/report.py` through their command lines, on real small runs."""

import csv
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from vision.benchmark.models import ModelResult
from vision.config import load_config
from vision.environment import environment_record
from vision.training.final_metrics import final_metrics

ROOT = Path(__file__).parents[2]

GRID = """
seeds: [0]
norms: {{layernorm: {{}}, dyt: {{}}, seednorm: {{alpha_init: .inf}}}}  # the last diverges
tasks:
  classify:
    configs: [{root}/configs/vit_ti.yaml]
    overrides:
      [{small}, trainer.epochs=1, optim.warmup_epochs=0, trainer.diagnostics_every_n_steps=5,
       trainer.checkpoint_every_n_steps=3]
"""


def wait_for(path: Path) -> None:
    end = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)


class Compared:
    """A comparison that was told to stop in its first run, then killed in its second, then run."""

    def __init__(
        self, forked, compare, small: list[str], environment: dict[str, str], home: Path
    ) -> None:
        self.environment = environment
        grid = home / "grid.yaml"
        grid.write_text(GRID.format(root=ROOT, small=", ".join(small)))
        self.arguments = [str(grid), f"output_dir={home}"]
        self.folder = home / "grid"
        self.dyt = self.folder / "classify/dyt_seed0"
        process = self.start("layernorm")
        self.second = forked("tools/compare.py", *self.arguments, code=2).stderr, process.pid
        process.send_signal(signal.SIGTERM)
        self.stopped = (*process.communicate(timeout=120), process.returncode)
        self.saved = self.steps("layernorm")
        process = self.start("dyt")
        self.first = self.summary("layernorm").stat().st_mtime_ns
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.last = compare(*self.arguments)

    def start(self, norm: str) -> subprocess.Popen:
        """The comparison, when the run of `norm` has saved for the first time."""
        process = subprocess.Popen(
            [sys.executable, "tools/compare.py", *self.arguments], cwd=ROOT, env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        wait_for(self.folder / f"classify/{norm}_seed0/last.ckpt")
        return process

    def summary(self, norm: str) -> Path:
        return self.folder / f"classify/{norm}_seed0/summary.json"

    def steps(self, norm: str) -> list[int | None]:
        """The step that each start of a run began at."""
        starts = json.loads((self.summary(norm).with_name("environment.json")).read_text())
        return [start["resumed_from_step"] for start in starts]

    def table(self) -> list[dict[str, str]]:
        """The rows of report.csv without what depends on the clock."""
        rows = list(csv.DictReader((self.folder / "report.csv").open()))
        return [{k: v for k, v in row.items() if k in TIMELESS} for row in rows]


TIMELESS = ("task", "norm", "runs", "metric", "mean", "std", "difference", "verdict", "parameters")


@pytest.fixture(scope="module")
def compared(
    forked, compare, small, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Compared:
    return Compared(forked, compare, small, environment, tmp_path_factory.mktemp("compare"))


@pytest.mark.slow
def test_a_second_call_is_told_who_holds_the_directory(compared: Compared) -> None:
    error, pid = compared.second
    assert error.startswith(f"error: {compared.folder}: in use by process {pid} on ")


@pytest.mark.slow
def test_sigterm_stops_the_runs_when_they_have_saved(compared: Compared) -> None:
    out, error, code = compared.stopped
    assert code == 75
    assert "stopped with 0 of 3 cells done; the same command goes on from there" in out
    assert "stops 1 run: each ends its step and saves" in error
    starts = compared.steps("layernorm")
    assert starts[0] is None and starts[1] is not None and starts[1] >= 3


@pytest.mark.slow
def test_a_killed_comparison_goes_on_where_it_was(compared: Compared) -> None:
    assert compared.summary("layernorm").stat().st_mtime_ns == compared.first
    starts = compared.steps("dyt")
    assert starts[0] is None and starts[1] is not None and starts[1] >= 3
    status = json.loads((compared.folder / "status.json").read_text())
    assert {o["cell"]: o["state"] for o in status} == {
        "classify/layernorm_seed0": "finished",
        "classify/dyt_seed0": "finished",
        "classify/seednorm_seed0": "diverged",
    }
    output = compared.last.stdout
    assert re.search(r"diverged  classify/seednorm_seed0 .*\[2 of 3 done, 1 diverged\]", output)


@pytest.mark.slow
def test_what_the_page_prints_makes_the_same_table(
    compared: Compared, environment: dict[str, str], tmp_path: Path
) -> None:
    page = (compared.folder / "report.html").read_text()
    printed = html.unescape(re.findall(r'<pre id="again">(.*?)</pre>', page, re.S)[0])
    for name in ("configs", "tools", "vision"):
        (tmp_path / name).symlink_to(ROOT / name)
    before = compared.table()
    # one cell is trained again; had the grid changed, the others would be refused
    kept = compared.dyt.rename(tmp_path / "kept")
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    subprocess.run(
        ["bash", "-ec", printed], cwd=tmp_path, check=True, env={**environment, "PATH": path}
    )
    assert compared.table() == before
    assert compared.steps("dyt") == [None]
    a, b = (json.loads((run / "summary.json").read_text()) for run in (kept, compared.dyt))
    assert a["metrics"] == b["metrics"]


@pytest.mark.slow
def test_runs_that_are_not_what_the_grid_would_give_are_refused_or_done_again(
    compared: Compared, compare, tmp_path: Path
) -> None:
    home = shutil.copytree(compared.folder, tmp_path / "grid").parent  # moved: that is no change
    arguments = [compared.arguments[0], f"output_dir={home}"]
    assert "finished  classify/layernorm" in compare(*arguments).stdout
    arguments.append("norms.dyt.alpha_init=0.7")
    error = compare(*arguments, code=2).stderr
    assert error.startswith(
        f"error: {home}/grid/classify/dyt_seed0: norm.options = {{}} in the run, "
        "{'alpha_init': 0.7} in the grid; "
    )
    assert "--rerun" in error
    output = compare(*arguments, "--rerun").stdout
    assert "1 runs put aside" in output
    replaced = list((home / "grid/replaced").glob("*/classify/*"))
    assert [path.name for path in replaced] == ["dyt_seed0"]
    run = load_config([home / "grid/classify/dyt_seed0/config.yaml"]).config
    assert run.norm.options == {"alpha_init": 0.7}
    assert compared.first == compared.summary("layernorm").stat().st_mtime_ns


@pytest.mark.slow
def test_each_run_is_evaluated_once_and_compared_by_what_that_found(
    compared: Compared, compare, tmp_path: Path
) -> None:
    home = shutil.copytree(compared.folder, tmp_path / "grid").parent
    asked = "tasks.classify.evaluate=[calibration_error,corruptions/contrast]"
    arguments = [compared.arguments[0], f"output_dir={home}", asked, "--jobs", 2]
    output = compare(*arguments).stdout
    told = sorted(re.findall(r"(?m)^evaluated +(\S+)", output))
    assert told == ["classify/dyt_seed0", "classify/layernorm_seed0"]
    rows = list(csv.DictReader((home / "grid/report.csv").open()))
    found = {(row["metric"], row["norm"]): row for row in rows}
    for norm in ("layernorm", "dyt"):
        file = home / f"grid/classify/{norm}_seed0/evaluated/evaluate_test.json"
        record = json.loads(file.read_text())
        mean = sum(record["corruptions"]["contrast"]) / 5
        row = found["evaluate/corruptions/contrast", norm]
        assert float(row["mean"]) == pytest.approx(mean) and row["runs"] == "1 of 1"
        row = found["evaluate/calibration_error", norm]
        assert float(row["mean"]) == record["calibration_error"]
        # of the weights that the run's own metric is of
        assert record["top1"] == pytest.approx(float(found["test/top1", norm]["mean"]), abs=1e-4)
    assert found["evaluate/calibration_error", "seednorm"]["runs"] == "0 of 1, 1 diverged"
    again = compare(*arguments).stdout
    assert not re.search(r"(?m)^evaluated", again) and "finished  classify/dyt_seed0" in again
    for wrong, expected in (
        ("tasks.classify.evaluate=[top1]", "tasks.classify.evaluate: 'top1': expected calib"),
        ("tasks.classify.evaluate=[corruptions/frost]", "corruptions = 'frost'"),
    ):
        error = compare(*arguments[:2], wrong, code=2).stderr
        assert expected in error


def measured(label: str, options: dict, step_ratio: float, peak_ratio: float) -> dict:
    norm = label.partition("_")[0]
    numbers = (2, "float32", 0.5, 1 << 30, step_ratio, peak_ratio)
    return asdict(ModelResult("vit_base", "classify", label, norm, options, *numbers))


@pytest.mark.slow
def test_time_and_memory_come_from_a_measurement_that_the_grid_names_or_are_not_shown(
    compared: Compared, compare, forked, tmp_path: Path
) -> None:
    home = shutil.copytree(compared.folder, tmp_path / "grid").parent
    page = (compared.folder / "report.html").read_text()
    assert "Time and memory are not shown: the grid names no measurement" in page
    assert '<th scope="col">memory</th>' not in page and "images_per_sec" not in page
    record = {
        "time": "2026-01-02T03:04:05Z", "environment": environment_record(),
        "results": [
            measured("layernorm", {}, 1.0, 1.0), measured("dyt", {"alpha_init": 0.9}, 1.25, 0.5),
            measured("seednorm_16", {"num_heads": 16}, 1.5, 1.5),  # not the grid's
        ],
    }  # fmt: skip
    file = tmp_path / "costs.json"
    file.write_text(json.dumps(record))
    arguments = [compared.arguments[0], f"output_dir={home}", f"costs={file}"]
    compare(*arguments)
    file.unlink()  # the comparison has its own
    forked("tools/report.py", home / "grid")
    rows = {row["norm"]: row for row in csv.DictReader((home / "grid/report.csv").open())}
    assert (rows["dyt"]["time"], rows["dyt"]["memory"]) == ("1.25", "0.5")
    assert rows["seednorm"]["time"] == ""
    page = (home / "grid/report.html").read_text()
    assert '<th scope="col">time</th>' in page
    note = re.findall(r"Time and memory of a training step[^<]*", page)[0]
    assert "of vit_base at batch 2 in float32" in note and "2026-01-02" in note
    assert "Not measured with their options: seednorm." in note
    assert f"{file}: no such file" in compare(*arguments, code=2).stderr


@pytest.mark.slow
def test_the_metrics_that_are_known_before_are_those_of_the_summary(
    compared: Compared, trained_dit: Path
) -> None:
    for run in (compared.summary("layernorm").parent, trained_dit):
        summary = json.loads((run / "summary.json").read_text())
        assert sorted(final_metrics(load_config([run / "config.yaml"]).config)) == sorted(
            summary["metrics"]
        )


@pytest.mark.slow
def test_the_report_shows_the_metrics_of_the_runs_and_needs_no_other_file(
    tool, compared: Compared, tmp_path: Path
) -> None:
    folder = compared.folder
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
