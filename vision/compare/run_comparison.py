"""Estimate, write job scripts for, or run and report a comparison."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from vision.compare.changed import check_unchanged, put_aside_changed
from vision.compare.grid import Cell, compare_directory, make_cells
from vision.compare.plan import plan_comparison
from vision.compare.processes import Killed, Terminated, sigterm_raises
from vision.compare.report.collect import read_comparison
from vision.compare.report.page import write_report
from vision.compare.report.tables import make_rows, to_markdown, to_terminal
from vision.compare.runs import Outcome, check_cells, compare, write_sbatch
from vision.compare.schema import CompareConfig
from vision.compare.time_estimate import TimeEstimate, estimate_time
from vision.errors import ConfigError
from vision.files import check_folder
from vision.lock import lock
from vision.text import show
from vision.training.plan.tables import table
from vision.training.train import REQUEUE

_ESTIMATED = "task, variant|runs|parameters|steps|ms/step|minutes each".split("|")


def run_comparison(
    config: CompareConfig,
    jobs: int,
    dry_run: bool = False,
    plan: bool = False,
    sbatch: Sequence[str] | None = None,
    rerun: bool = False,
) -> None:
    """Plan, or check all cells, then estimate, write job scripts, or run and report.

    `rerun`: runs that differ from the grid are put aside and done again, else they are refused.
    Raises ConfigError for whatever the person asking can fix. SIGTERM and Ctrl-C end it as they do
    a training, when the runs have saved: SystemExit with code 75; KeyboardInterrupt after another.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs}: expected at least 1")
    if sbatch is not None and any(config.tuning(task) is not None for task in config.tasks):
        raise ConfigError(
            "--sbatch: the best trials are chosen between two jobs, which job arrays do not do; "
            "run the comparison itself in one job, with --jobs, or leave out tune"
        )
    cells = make_cells(config)
    folder = compare_directory(config)
    if plan:
        show(*plan_comparison(cells).split("\n"))
        return
    if dry_run:
        check_cells(config, cells)
        _estimate(cells, jobs)
        return
    check_folder(folder)
    with ExitStack() as stack:
        # whoever holds it is named before the cells are checked; else nothing is made until then
        held = stack.enter_context(lock(folder)) if folder.is_dir() else None
        check_cells(config, cells)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            held = stack.enter_context(lock(folder))
        _settle_changed(config, cells, rerun)
        if sbatch is not None:
            path = write_sbatch(config, sbatch)
            show(f"written {path}; run it where sbatch is, then tools/report.py {folder}")
        else:
            _run(config, cells, jobs, held)


def _settle_changed(config: CompareConfig, cells: dict[str, list[Cell]], rerun: bool) -> None:
    if not rerun:
        check_unchanged(cells)
        return
    moved = put_aside_changed(config, cells)
    if moved:
        show(f"{len(moved)} runs put aside in {moved[0].parents[1]}, to be done again")
    else:
        show("--rerun: no run differs from the grid; all are kept")


def _run(config: CompareConfig, cells: dict[str, list[Cell]], jobs: int, held: int | None) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    count = sum(map(len, cells.values()))
    with RichProgress(*columns, console=Console(stderr=True)) as bar, sigterm_raises():
        job = bar.add_task("runs", total=count)

        def started(state: str) -> None:
            bar.update(job, description=state)

        def report(outcome: Outcome, state: str) -> None:
            bar.update(job, advance=not outcome.state.endswith("evaluated"), description=state)
            text = f"{outcome.state:<9} {outcome.cell} {outcome.seconds:.0f} s {outcome.message}"
            show(f"{text.rstrip()}  [{state}]")

        try:
            compare(config, jobs, started, report, held)
        except (Terminated, KeyboardInterrupt) as error:
            show(
                f"stopped with {bar.tasks[job].completed:.0f} of {count} cells done; the same "
                "command goes on from there"
            )
            if isinstance(error, Killed):
                raise
            sys.exit(REQUEUE)
    comparison = read_comparison(compare_directory(config))
    rows = make_rows(comparison)
    if sys.stdout.isatty():
        Console().print(to_terminal(rows))
    else:
        show("", *to_markdown(rows).split("\n"))
    for path in write_report(comparison, comparison.folder):
        show(str(path))


def _estimate(cells: dict[str, list[Cell]], jobs: int) -> None:
    rows, total = [], 0.0
    measured: dict[tuple[str, str], TimeEstimate] = {}  # trials take as long as the runs
    for stage, column in cells.items():
        for variant in dict.fromkeys(cell.variant for cell in column):
            members = [cell for cell in column if cell.variant == variant]
            key = (members[0].task, variant)
            try:
                found = measured[key] = measured.get(key) or estimate_time(members[0])
            except (ValueError, FileNotFoundError) as error:
                raise ConfigError(f"{members[0]}: {error}") from error
            total += found.seconds * len(members)
            rows.append(
                [
                    f"{stage}, {variant}", str(len(members)), f"{found.parameters:,}",
                    f"{found.steps:,}", f"{1e3 * found.seconds_per_step:.0f}",
                    f"{found.seconds / 60:.1f}",
                ]
            )  # fmt: skip
    show(*table(_ESTIMATED, rows).split("\n"))
    show(
        f"training alone: {total / 60:.0f} minutes with one run at a time, without the start of "
        "each run, validation and checkpoints"
        + (f"; {jobs} runs share the machine's cores" if jobs > 1 else "")
    )
