"""Metrics of tools/evaluate.py, run once on each finished cell of a task that asks for them."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vision.compare.grid import Cell
from vision.compare.processes import Ended, Job, run_jobs
from vision.compare.schema import CORRUPTIONS, EVALUATE
from vision.config import Config, load_config
from vision.config.load import split_arguments
from vision.datasets.corruptions import corruption_names

_TOOL = Path(__file__).resolve().parents[2] / "tools" / "evaluate.py"


def check_evaluations(names: Sequence[str], run: Config) -> None:
    """Raise ValueError where a run cannot be evaluated so."""
    if names and run.task != "classify":
        raise ValueError(f"evaluate = {list(names)}: evaluates classifiers, and task is {run.task}")
    try:
        corruption_names(_corruptions(names))
    except ValueError as error:
        raise ValueError(f"evaluate: {error}") from None


def evaluated_metrics(folder: Path) -> dict[str, float]:
    """What the evaluation of the run in `folder` found, by the metrics' names in tables.

    Accuracy under corruptions is the mean over severities, and over types where no type is named.
    """
    found: dict[str, float] = {}
    for file in sorted((folder / "evaluated").glob("evaluate_*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        found[f"{EVALUATE}calibration_error"] = record["calibration_error"]
        means = {k: statistics.fmean(v) for k, v in record.get("corruptions", {}).items()}
        found |= {f"{EVALUATE}{CORRUPTIONS}/{name}": value for name, value in means.items()}
        if set(corruption_names("all")) <= means.keys():
            found[f"{EVALUATE}{CORRUPTIONS}"] = statistics.fmean(means.values())
    return found


def evaluate_cells(
    cells: Sequence[Cell],
    names: Sequence[str],
    folder: Path,
    jobs: int,
    environment: Mapping[str, str],
    ended: Callable[[str, Ended], None],
    lock: int | None,
) -> None:
    """Evaluate the runs of `cells`, but for those that have all of `names` already.

    Each writes `evaluated/` in its run when it is done, so a later call does the rest.
    """
    wanted = {f"{EVALUATE}{name}" for name in names}
    todo = {
        str(cell): Job(evaluation(cell, names), log_of(folder, cell))
        for cell in cells
        if not wanted <= evaluated_metrics(cell.folder).keys()
    }
    run_jobs(todo, jobs, environment, lambda name: None, ended, lock)


def evaluation(cell: Cell, names: Sequence[str]) -> list[str]:
    """What evaluates the run of a cell: on its test split, or validation where it has none."""
    config = load_config(*split_arguments(cell.from_scratch())).config
    split = "validation" if config.data.test_split is None else "test"
    corruptions = _corruptions(names)
    return [
        *(sys.executable, str(_TOOL), str(cell.folder), "--split", split),
        *("--output", str(cell.folder / "evaluated")),
        *(["--corruptions", corruptions] if corruptions else []),
    ]


def log_of(folder: Path, cell: Cell) -> Path:
    """What the evaluation prints is appended to this file."""
    return folder / "logs" / f"{cell.task}_{cell.folder.name}_evaluate.txt"


def _corruptions(names: Sequence[str]) -> str | None:
    if CORRUPTIONS in names:
        return "all"
    chosen = [n.partition("/")[2] for n in names if n.startswith(f"{CORRUPTIONS}/")]
    return ",".join(chosen) or None
