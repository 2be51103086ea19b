"""Reads the runs of a comparison."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.compare.costs import Costs, kept_costs
from vision.compare.evaluations import evaluated_metrics
from vision.compare.grid import Cell, load_compare, make_cells
from vision.compare.milestones import is_milestone, read_milestone
from vision.compare.runs import read_status
from vision.compare.schema import CompareConfig
from vision.compare.winners import Search, search, tuning_metric
from vision.config import load_config
from vision.training.callbacks.metrics_csv import read_metrics
from vision.training.run_directory import read_summary


@dataclass(frozen=True)
class Run:
    """One cell: `state` is finished, diverged, failed, unfinished or not started."""

    cell: Cell
    folder: Path
    state: str
    message: str
    summary: dict[str, Any]  # empty where it has not finished
    metrics: dict[int, dict[str, float]]  # rows of metrics.csv by step
    environment: dict[str, Any]  # of its last start; empty where it has none
    evaluated: dict[str, float]  # metrics of its evaluation

    def metric(self, name: str) -> float | None:
        """A final metric, one of the evaluation, or the steps to one; None: the run has none."""
        if is_milestone(name):
            return read_milestone(name).steps(self.metrics) if self.summary else None
        return self.summary.get("metrics", {}).get(name, self.evaluated.get(name))


@dataclass(frozen=True)
class Comparison:
    """The grid and all its runs."""

    folder: Path
    config: CompareConfig
    runs: tuple[Run, ...]
    costs: Costs | None  # measured alone

    def of(self, task: str, label: str) -> list[Run]:
        """The runs that count of one task and variant, by seed."""
        mine = [r for r in self.runs if (r.cell.task, r.cell.variant) == (task, label)]
        return [run for run in mine if run.cell.trial is None]

    def values(self, task: str, label: str, metric: str | None = None) -> dict[int, float]:
        """A metric (None: the compared one) of every finished run, by seed."""
        name = metric or self.config.tasks[task].metric
        found = {run.cell.seed: run.metric(name) for run in self.of(task, label)}
        return {seed: value for seed, value in found.items() if value is not None}

    def cost(self, task: str, label: str) -> dict[str, Any] | None:
        """What was measured for one task and variant; None where nothing was, or no run began."""
        files = [run.folder / "config.yaml" for run in self.of(task, label)]
        file = next((file for file in files if file.is_file()), None)
        if self.costs is None or file is None:
            return None
        return self.costs.find(load_config([file]).config)

    def search(self, task: str, label: str) -> Search:
        """The trials of one task and variant."""
        name = tuning_metric(self.config, task)
        results = {str(r.cell): (r.state, r.metric(name)) for r in self.runs if r.cell.trial}
        return search(self.config, task, label, results)


def read_comparison(folder: Path) -> Comparison:
    """What lies in the directory of a comparison, which may have been moved since.

    Raises FileNotFoundError where there is no compare.yaml in it.
    """
    file = folder / "compare.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder}: no compare.yaml in it; expected the directory that tools/compare.py writes"
        )
    config = load_compare(file)
    status = read_status(folder)
    runs = []
    for cells in make_cells(config).values():
        for cell in cells:
            known = status.get(str(cell))
            runs.append(_read_run(cell, folder, known.state if known else None, known))
    return Comparison(folder, config, tuple(runs), kept_costs(config, folder))


def _read_run(cell: Cell, root: Path, state: str | None, known: Any) -> Run:
    folder = root / cell.task / cell.folder.name
    summary = read_summary(folder) or {}
    if summary:
        state = "finished"
    elif state is None:
        state = "unfinished" if folder.exists() else "not started"
    metrics = folder / "metrics.csv"
    environment = folder / "environment.json"
    starts = json.loads(environment.read_text("utf-8")) if environment.is_file() else []
    return Run(
        cell,
        folder,
        state,
        known.message if known else "",
        summary,
        read_metrics(metrics) if metrics.is_file() else {},
        starts[-1] if starts else {},
        evaluated_metrics(folder),
    )
