"""What a norm costs in time and memory, from a measurement that had the machine to itself.

Runs of a comparison share the machine with each other, so what they took is no measurement.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vision.compare.grid import compare_directory
from vision.compare.schema import CompareConfig
from vision.config import Config
from vision.errors import ConfigError
from vision.files import write_json
from vision.norms.registry import get_norm

COMMAND = "tools/benchmark.py models --norms all --json FILE"
_FILE = "costs.json"  # in the comparison's directory
_KEYS = {"model", "task", "norm", "options", "batch", "dtype", "step_ratio", "peak_ratio"}
_FREE = {"eps", "backend"}  # options that cost nothing, besides start values, NAME_init


@dataclass(frozen=True)
class Costs:
    """The record of `tools/benchmark.py models`."""

    results: list[dict[str, Any]]
    where: str  # machine, commit, versions and date

    def find(self, config: Config) -> dict[str, Any] | None:
        """The result for the norm of a run's `config`, in its own model where that was measured.

        Else in the first model of its task; None where no model of its task was measured with it.
        """
        wanted = _costly(config.task, config.norm.name, config.norm.options)
        found = [
            r
            for r in self.results
            if r["task"] == config.task and r["norm"] == config.norm.name
            if _costly(r["task"], r["norm"], r["options"]) == wanted
        ]
        own = [r for r in found if r["model"].removeprefix("mae:") == config.model.name]
        return next(iter(own + found), None)


def keep_costs(config: CompareConfig) -> None:
    """Copy the measurement that the grid names into the comparison's directory, if it names one."""
    if config.costs is not None:
        write_json(compare_directory(config) / _FILE, _read(Path(config.costs)))


def check_costs(config: CompareConfig) -> None:
    """Raise ConfigError where the grid names a file that is no such measurement."""
    if config.costs is not None:
        _read(Path(config.costs))


def kept_costs(config: CompareConfig, folder: Path) -> Costs | None:
    """The measurement that lies in a comparison's directory; None where its grid names none."""
    file = folder / _FILE
    if config.costs is None or not file.is_file():
        return None
    record = _read(file)
    machine = record["environment"]
    commit = str(machine.get("git_commit") or "unknown")[:10]
    changed = ", changed" if machine.get("git_dirty") else ""
    return Costs(
        record["results"],
        f"on {machine['device']} ({machine['threads']} threads, torch "
        f"{machine['packages']['torch']}, commit {commit}{changed}, {record['time'][:10]})",
    )


def _read(file: Path) -> dict[str, Any]:
    expected = f"expected what {COMMAND} wrote"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"costs = {file}: no such file; {expected}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"costs = {file}: cannot be read ({error}); {expected}") from None
    results = record.get("results") if isinstance(record, dict) else None
    machine = record.get("environment") if isinstance(record, dict) else None
    known = isinstance(machine, dict) and {"device", "threads", "packages"} <= machine.keys()
    if not isinstance(results, list) or not known or "time" not in record:
        raise ConfigError(f"costs = {file}: has no time, environment and results; {expected}")
    for number, result in enumerate(results):
        missing = _KEYS - (result.keys() if isinstance(result, dict) else set())
        if missing:
            raise ConfigError(
                f"costs = {file}: result {number} has no {', '.join(sorted(missing))}; {expected}"
            )
    return record


def _costly(task: str, norm: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that change what is computed, without those at their default."""
    try:
        known = inspect.signature(get_norm(norm).__init__).parameters
        defaults = {name: parameter.default for name, parameter in known.items()}
    except ValueError:  # of a user's module
        defaults = {}
    defaults["affine"] = task != "dit"  # there the condition scales and shifts
    found = {k: v for k, v in options.items() if k not in _FREE and not k.endswith("_init")}
    if "coefficient_dropout" in found:
        rate = found["coefficient_dropout"]
        found["coefficient_dropout"] = rate not in (0, None)  # any rate costs the same
        defaults["coefficient_dropout"] = False
    return {k: v for k, v in found.items() if k not in defaults or v != defaults[k]}
