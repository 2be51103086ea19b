"""Runs the cells of a comparison, each as tools/train.py in a process of its own."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

from vision.checkpoints.read import find_checkpoint
from vision.compare.changed import check_unchanged
from vision.compare.costs import check_costs, keep_costs
from vision.compare.evaluations import check_evaluations, evaluate_cells, evaluation
from vision.compare.grid import Cell, compare_directory, make_cells, save_compare
from vision.compare.milestones import check_milestone, is_milestone
from vision.compare.processes import Ended, Job, run_jobs
from vision.compare.progress import Progress
from vision.compare.schema import CompareConfig, TaskGrid, needed
from vision.compare.winners import settle, tuning_metric
from vision.config import Config, load_config
from vision.config.load import split_arguments
from vision.errors import ConfigError, nearest
from vision.files import write_json
from vision.training.build import check_build
from vision.training.check import load_checked
from vision.training.final_metrics import final_metrics
from vision.training.run_directory import read_summary

_TRAIN = Path(__file__).resolve().parents[2] / "tools" / "train.py"
# a run that saves itself before its time limit ends with 75, and its job is queued again
_SBATCH = ("--signal=USR1@120", "--requeue", "--open-mode=append")
_REQUEUE = (
    "code=$?",
    'if [ $code -eq 75 ]; then scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"; fi',
    "exit $code",
)
_STATES = {0: "finished", 3: "diverged"}  # exit codes of tools/train.py; any other: failed


@dataclass(frozen=True)
class Outcome:
    """How a cell ended: `finished`, `diverged` or `failed`, its last line, and seconds.

    Of its evaluation, which is reported only: `evaluated` or `not evaluated`.
    """

    cell: str
    state: str
    message: str
    seconds: float


def check_cells(config: CompareConfig, cells: Mapping[str, Sequence[Cell]]) -> None:
    """Raise ConfigError, naming the cell, if one of them cannot be run or has not the metric."""
    check_costs(config)
    built = set()
    splits: dict[str, int] = {}  # of each task's trials, which come first
    for cell in chain.from_iterable(cells.values()):
        try:
            run = load_checked(cell.from_scratch()).config
            if config.tuning(cell.task) is not None:
                _check_split(splits.setdefault(cell.task, run.data.split_seed or 0), run)
            model = (cell.task, cell.variant, cell.trial and cell.trial.name)
            if model not in built:  # seeds share a model
                check_build(run)
                _check_given(config.tasks[cell.task], cell)
                _check_metrics(config, cell, run)
                check_evaluations(config.tasks[cell.task].evaluate, run)
                built.add(model)
        except (ValueError, FileNotFoundError) as error:
            raise ConfigError(f"{cell}: {error}") from None


def _check_split(first: int, run: Config) -> None:
    """Images that a trial is judged by must not be test images of a run."""
    if (run.data.split_seed or 0) != first:
        raise ValueError(
            f"data.split_seed = {run.data.split_seed}: other runs of this task split by {first}, "
            "so that images which choose its settings test it; with tune, give all runs one split"
        )


def _check_given(grid: TaskGrid, cell: Cell) -> None:
    """Checkpoints that runs start from or use and the grid does not make have to be there."""
    arguments = [a for a in cell.arguments if a != str(cell.tuned)]
    run = load_config(*split_arguments(arguments)).config
    used = {} if grid.init_from else {"model.init_from": run.model.init_from or ""}
    kind, _, path = (run.evaluation.extractor or "").partition(":")
    if kind == "run" and not grid.features_from:
        used["evaluation.extractor"] = path
    for key, name in used.items():
        try:
            if name:
                find_checkpoint(name)
        except FileNotFoundError as error:
            raise ValueError(f"{key}: {error}") from None


def _check_metrics(config: CompareConfig, cell: Cell, run: Config) -> None:
    grid, metrics = config.tasks[cell.task], final_metrics(run)
    used = {"metric": [grid.metric], "columns": grid.columns}
    if cell.trial is not None:
        used = {"metric": [tuning_metric(config, cell.task)]}
    for key, names in used.items():
        for name in names:
            if key == "columns" and is_milestone(name):
                check_milestone(name, metrics)
            elif name not in metrics:
                raise ValueError(
                    f"{key} = {name!r}: its summary has none; {nearest(name, metrics)}"
                )


def compare(
    config: CompareConfig,
    jobs: int,
    started: Callable[[str], None],
    report: Callable[[Outcome, str], None],
    lock: int | None,
) -> None:
    """Run the unfinished cells, `jobs` at a time, task after task.

    The state of the whole, as text, goes to `started` when a run starts, and to `report` with each
    outcome. Evaluations that a task asks for are done when its runs have ended, and those that
    failed again in the next call. Finished and diverged cells are left alone, interrupted ones
    resume from their last checkpoint, and a failed one does not stop the others. Outcomes go to
    `status.json`. `lock`: see `run_jobs`.
    """
    folder = compare_directory(config)
    save_compare(config, folder / "compare.yaml")
    keep_costs(config)
    columns = make_cells(config)
    before = read_status(folder)
    progress = Progress({str(c): c.task for column in columns.values() for c in column}, jobs)
    outcomes: dict[str, Outcome] = {}

    def record(outcome: Outcome) -> None:
        outcomes[outcome.cell] = outcome
        progress.ended(outcome.cell, outcome.state, outcome.seconds)
        write_json(folder / "status.json", [asdict(o) for o in {**before, **outcomes}.values()])
        report(outcome, str(progress))

    for stage, column in columns.items():
        todo, barred = {}, _settle_trials(config, column, columns.get(f"{stage}_trials"), outcomes)
        for cell in column:
            known = barred.get(cell) or known_outcome(cell, before)
            if known is None:
                before.pop(str(cell), None)
                todo[str(cell)] = Job(command(cell), log_file(folder, cell))
            else:
                record(known)
        threads = str(max(1, (os.cpu_count() or 1) // jobs))
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        run_jobs(
            todo,
            jobs,
            environment,
            lambda name: started(progress.started(name)),
            lambda name, ended: record(_outcome(name, ended)),
            lock,
        )
        names = [] if column[0].trial else config.tasks[column[0].task].evaluate
        if names:
            evaluate_cells(
                [cell for cell in column if outcomes[str(cell)].state == "finished"],
                names,
                folder,
                jobs,
                environment,
                lambda name, ended: report(_evaluated(name, ended), str(progress)),
                lock,
            )


def _settle_trials(
    config: CompareConfig,
    column: Sequence[Cell],
    trials: Sequence[Cell] | None,
    outcomes: Mapping[str, Outcome],
) -> dict[Cell, Outcome]:
    """Write what won the trials of a task; returns the outcomes of cells that have no winner.

    Raises ConfigError where a run was trained with what won before.
    """
    if trials is None:
        return {}
    metric = tuning_metric(config, column[0].task)
    results = {}
    for cell in trials:
        metrics = (read_summary(cell.folder) or {}).get("metrics", {})
        results[str(cell)] = (outcomes[str(cell)].state, metrics.get(metric))
    without = settle(config, column[0].task, results)
    check_unchanged({"": [cell for cell in column if cell.variant not in without]})
    return {
        cell: Outcome(str(cell), *without[cell.variant], 0.0)
        for cell in column
        if cell.variant in without
    }


def known_outcome(cell: Cell, status: dict[str, Outcome]) -> Outcome | None:
    """How a cell ended in an earlier call; None where it has to be run, or run on."""
    before = status.get(str(cell))
    summary = read_summary(cell.folder)
    if summary is not None:
        seconds = before.seconds if before and before.state == "finished" else None
        return Outcome(str(cell), "finished", "", seconds or summary.get("wall_seconds", 0.0))
    if before is not None and before.state == "diverged" and cell.folder.exists():
        return before
    return None


def _outcome(cell: str, ended: Ended) -> Outcome:
    lines = ended.output.splitlines()
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    state = _STATES.get(ended.code, "failed")
    message = "" if state == "finished" else (errors or ["no output"])[-1]
    return Outcome(cell, state, message, ended.seconds)


def _evaluated(cell: str, ended: Ended) -> Outcome:
    outcome = _outcome(cell, ended)
    state = "evaluated" if outcome.state == "finished" else "not evaluated"
    return replace(outcome, state=state)


def log_file(folder: Path, cell: Cell) -> Path:
    """What the cell prints is appended to this file."""
    return folder / "logs" / f"{cell.task}_{cell.folder.name}.txt"


def command(cell: Cell) -> list[str]:
    """What runs, or resumes, this cell."""
    return [sys.executable, str(_TRAIN), *cell.arguments, "--resume", "trainer.progress_bar=false"]


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
    save_compare(config, folder / "compare.yaml")
    keep_costs(config)
    submit = ["#!/bin/bash", "set -e"]
    for task, cells in make_cells(config).items():
        lines = [
            f"#SBATCH {option}" for option in (f"--array=0-{len(cells) - 1}", *_SBATCH, *options)
        ]
        names = config.tasks[task].evaluate
        cases = [
            f"{i}) srun --kill-on-bad-exit=1 {shlex.join(command(cell))}"
            + (f" && srun --ntasks=1 {shlex.join(evaluation(cell, names))}" if names else "")
            + " ;;"
            for i, cell in enumerate(cells)
        ]
        script = folder / f"{task}.sbatch"
        body = ["#!/bin/bash", *lines, 'case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac", *_REQUEUE]
        script.write_text("\n".join(body) + "\n", encoding="utf-8")
        kinds = {"init_from": "aftercorr", "features_from": "afterok"}
        waits = [f"{kinds[key]}:$job_{t}" for t, key in needed(config.tasks[task]).items()]
        after = f"--dependency={','.join(waits)} " if waits else ""
        submit.append(f"job_{task}=$(sbatch --parsable {after}{shlex.quote(str(script))})")
    path = folder / "submit.sh"
    path.write_text("\n".join(submit) + "\n", encoding="utf-8")
    return path
