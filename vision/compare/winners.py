"""Which setting won a variant's trials; its runs are then trained with that."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.compare.grid import compare_directory, norm_name, trials, tuned_file
from vision.compare.schema import CompareConfig
from vision.compare.tuning import Trial, as_overlay, edges
from vision.files import written


@dataclass(frozen=True)
class Setting:
    """What was tried with every tuning seed: `value` is the metric's mean on the validation split,
    None where a seed diverged or has not finished."""

    values: dict[str, Any]
    value: float | None
    states: tuple[str, ...]


@dataclass(frozen=True)
class Search:
    """All settings that were tried for one variant, and the best of those that finished."""

    tried: tuple[Setting, ...]
    best: Setting | None
    edges: tuple[str, ...]  # where the best lies at an end of what was tried

    @property
    def complete(self) -> bool:
        """Whether every trial has finished or diverged."""
        return all(s in ("finished", "diverged") for t in self.tried for s in t.states)


def tuning_metric(config: CompareConfig, task: str) -> str:
    """The metric that trials are judged by: the task's, on the validation split."""
    return config.tasks[task].metric.replace("test/", "val/", 1)


def trial_cell(task: str, label: str, trial: Trial) -> str:
    """The name of a trial's cell, as `str(cell)`."""
    return f"{task}/{label}_trial{trial.name}_seed{trial.seed}"


def search(
    config: CompareConfig,
    task: str,
    label: str,
    results: Mapping[str, tuple[str, float | None]],
) -> Search:
    """The search for one variant's settings, from the state and metric of each trial's cell.

    Of equally good settings the first in the space wins.
    """
    found: dict[str, list[tuple[str, float | None]]] = {}
    values: dict[str, dict[str, Any]] = {}
    for trial in trials(config, task, label):
        state, value = results.get(trial_cell(task, label, trial), ("not started", None))
        found.setdefault(trial.name, []).append((state, value))
        values[trial.name] = dict(trial.values)
    tried = []
    for name, runs in found.items():
        ended = [v for state, v in runs if state == "finished" and v is not None]
        mean = statistics.fmean(ended) if len(ended) == len(runs) else None
        tried.append(Setting(values[name], mean, tuple(state for state, _ in runs)))
    whole = [(setting.value, setting) for setting in tried if setting.value is not None]
    sign = 1 if config.tasks[task].higher_is_better else -1
    best = max(whole, key=lambda pair: sign * pair[0])[1] if whole else None
    at_end = edges(best.values, [setting.values for setting in tried]) if best else []
    return Search(tuple(tried), best, tuple(at_end))


def settle(
    config: CompareConfig, task: str, results: Mapping[str, tuple[str, float | None]]
) -> dict[str, tuple[str, str]]:
    """Write the winner of every variant; returns state and message of those that have none."""
    found = {label: search(config, task, label, results) for label in config.rows()}
    settled = {label: _write_winner(config, task, label, s) for label, s in found.items()}
    return {label: problem for label, problem in settled.items() if problem is not None}


def _write_winner(
    config: CompareConfig, task: str, label: str, found: Search
) -> tuple[str, str] | None:
    """Write the winner as the overlay of the variant's runs.

    Returns the state and message of these runs, which then cannot be trained, where there is none.
    """
    if not found.complete:
        return "failed", "not trained: a trial of its settings failed; the same command tries again"
    if found.best is None:
        return "diverged", f"not trained: each of {len(found.tried)} settings tried diverged"
    path = tuned_file(compare_directory(config), task, label)
    text = as_overlay(found.best.values, norm_name(label, config.rows()[label]))
    _write(path, f"# best of {len(found.tried)} settings by {tuning_metric(config, task)}\n{text}")
    return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
