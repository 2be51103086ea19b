"""Estimate, write job scripts for, or run and report a comparison."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from vision.compare.grid import Cell, CompareConfig, compare_directory, make_cells
from vision.compare.report.collect import read_comparison
from vision.compare.report.page import write_report
from vision.compare.report.tables import make_rows, to_markdown
from vision.compare.runs import Outcome, check_cells, compare, write_sbatch
from vision.compare.time_estimate import estimate_time
from vision.errors import ConfigError


def run_comparison(
    config: CompareConfig, jobs: int, dry_run: bool, sbatch: Sequence[str] | None
) -> None:
    """Check all cells, then estimate, write job scripts, or run and report.

    Raises ConfigError for whatever the person asking can fix.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs {jobs}: expected at least 1")
    cells = make_cells(config)
    check_cells(cell for column in cells.values() for cell in column)
    if dry_run:
        _estimate(cells, jobs)
    elif sbatch is not None:
        path = write_sbatch(config, sbatch)
        print(f"written {path}; run it where sbatch is, then tools/report.py {path.parent}")
    else:
        _run(config, sum(map(len, cells.values())), jobs)


def _run(config: CompareConfig, count: int, jobs: int) -> None:
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        job = bar.add_task("runs", total=count)

        def report(outcome: Outcome) -> None:
            bar.advance(job)
            text = f"{outcome.state:<9} {outcome.cell} {outcome.seconds:.0f} s {outcome.message}"
            print(text.rstrip(), flush=True)

        compare(config, jobs, report)
    comparison = read_comparison(compare_directory(config))
    print("\n" + to_markdown(make_rows(comparison)))
    for path in write_report(comparison, comparison.folder):
        print(path)


def _estimate(cells: dict[str, list[Cell]], jobs: int) -> None:
    table = Table("task", "norm", "runs", "parameters", "steps", "ms/step", "minutes each")
    total = 0.0
    for task, column in cells.items():
        for norm in dict.fromkeys(cell.norm for cell in column):
            members = [cell for cell in column if cell.norm == norm]
            try:
                found = estimate_time(members[0])
            except (ValueError, FileNotFoundError) as error:
                raise ConfigError(f"{members[0]}: {error}") from error
            total += found.seconds * len(members)
            table.add_row(
                task, norm, str(len(members)), f"{found.parameters:,}", f"{found.steps:,}",
                f"{1e3 * found.seconds_per_step:.0f}", f"{found.seconds / 60:.1f}",
            )  # fmt: skip
    Console().print(table)
    print(
        f"training alone: {total / 60:.0f} minutes with one run at a time, without the start of "
        "each run, validation and checkpoints"
        + (f"; {jobs} runs share the machine's cores" if jobs > 1 else "")
    )
