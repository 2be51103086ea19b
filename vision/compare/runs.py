"""Runs the cells of a comparison, each as tools/train.py in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from vision.compare.grid import (
    Cell,
    CompareConfig,
    compare_directory,
    make_cells,
    needed,
    save_compare,
)
from vision.errors import ConfigError
from vision.files import write_json
from vision.training.build import check_build
from vision.training.check import load_checked

_TRAIN = Path(__file__).resolve().parents[2] / "tools" / "train.py"
_STATES = {0: "finished", 3: "diverged"}  # exit codes of tools/train.py; any other: failed


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: `finished`, `diverged` or `failed`, its last line, and seconds."""

    cell: str
    state: str
    message: str
    seconds: float


def check_cells(cells: Iterable[Cell]) -> None:
    """Raise ConfigError, naming the cell, if one of them cannot be run."""
    built = set()
    for cell in cells:
        try:
            config = load_checked(cell.from_scratch()).config
            if (cell.task, cell.norm) not in built:  # seeds share a model
                check_build(config)
                built.add((cell.task, cell.norm))
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"{cell}: {error}") from None


def compare(config: CompareConfig, jobs: int, report: Callable[[Outcome], None]) -> list[Outcome]:
    """Run the unfinished cells, `jobs` at a time, task after task; `report` gets each outcome.

    Finished and diverged cells are left alone, interrupted ones resume from their last
    checkpoint, and a failed one does not stop the others. Outcomes go to `status.json`.
    """
    folder = compare_directory(config)
    folder.mkdir(parents=True, exist_ok=True)
    save_compare(config, folder / "compare.yaml")
    outcomes = read_status(folder)
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def work(cell: Cell) -> Outcome:
        known = outcomes.get(str(cell))
        if known is not None and known.state != "failed":
            return known
        return run_cell(cell, folder / "logs", threads)

    with ThreadPoolExecutor(jobs) as pool:
        for cells in make_cells(config).values():
            for outcome in pool.map(work, cells):
                outcomes[outcome.cell] = outcome
                write_json(folder / "status.json", [asdict(o) for o in outcomes.values()])
                report(outcome)
    return list(outcomes.values())


def run_cell(cell: Cell, logs: Path, threads: int) -> Outcome:
    """Train one cell to its end; what it prints goes to `logs/TASK_NAME.txt`."""
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{cell.task}_{cell.folder.name}.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.monotonic()
    with log.open("a") as file:
        code = subprocess.run(
            [*command(cell), "trainer.progress_bar=false"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        ).returncode
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    state = _STATES.get(code, "failed")
    message = "" if state == "finished" else (errors or ["no output"])[-1]
    return Outcome(str(cell), state, message, round(time.monotonic() - start, 1))


def command(cell: Cell) -> list[str]:
    """What runs, or resumes, this cell."""
    return [sys.executable, str(_TRAIN), *cell.arguments, "--resume"]


def read_status(folder: Path) -> dict[str, Outcome]:
    """The outcomes that an earlier call left, by cell."""
    path = folder / "status.json"
    entries = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return {entry["cell"]: Outcome(**entry) for entry in entries}


def write_sbatch(config: CompareConfig, options: Sequence[str]) -> Path:
    """One SLURM array per task, and `submit.sh`, which chains them; returns its path.

    `options` are lines for sbatch, such as "--gres=gpu:1". Cell i of a task waits for cell i of
    the task that it starts from, and for every cell of the task whose features it uses.
    """
    folder = compare_directory(config)
    folder.mkdir(parents=True, exist_ok=True)
    save_compare(config, folder / "compare.yaml")
    submit = ["#!/bin/bash", "set -e"]
    for task, cells in make_cells(config).items():
        lines = [f"#SBATCH {option}" for option in (f"--array=0-{len(cells) - 1}", *options)]
        cases = [f"{i}) exec {shlex.join(command(cell))} ;;" for i, cell in enumerate(cells)]
        script = folder / f"{task}.sbatch"
        body = ["#!/bin/bash", *lines, 'case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"]
        script.write_text("\n".join(body) + "\n", encoding="utf-8")
        kinds = {"init_from": "aftercorr", "features_from": "afterok"}
        waits = [f"{kinds[key]}:$job_{t}" for t, key in needed(config.tasks[task]).items()]
        after = f"--dependency={','.join(waits)} " if waits else ""
        submit.append(f"job_{task}=$(sbatch --parsable {after}{shlex.quote(str(script))})")
    path = folder / "submit.sh"
    path.write_text("\n".join(submit) + "\n", encoding="utf-8")
    return path
