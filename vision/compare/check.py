"""What is refused in a comparison's file. Imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from vision.compare.schema import CORRUPTIONS, CompareConfig, TaskGrid, needed
from vision.compare.tuning import check_tuning
from vision.config.schema import Config
from vision.config.setting import fault
from vision.errors import ConfigError, nearest

_NAME = Config.__dataclass_fields__["name"].metadata["limits"]
_OWN_KEYS = ("seed", "output_dir", "name")  # the grid gives them to each cell


def check_compare(config: CompareConfig) -> None:
    """Raise ConfigError, naming the key, for a grid that cannot be run."""
    for key in ("seeds", "tasks"):
        if not getattr(config, key):
            raise ConfigError(f"{key} is empty; expected at least one")
    rows = config.rows()
    if not rows:
        raise ConfigError("norms is empty, and variants too; expected at least one")
    if config.baseline not in rows:
        raise ConfigError(
            f"baseline = {config.baseline!r}: not among norms and variants; "
            f"{nearest(config.baseline, rows)}"
        )
    wrong = fault(_NAME, config.name)
    if wrong is not None:
        raise ConfigError(f"name = {config.name!r}: {wrong}")
    for label in rows:
        _check_label(label, config)
    for label, variant in rows.items():
        _check_overrides(f"variants.{label}.overrides", variant.overrides)
    _check_overrides("overrides", config.overrides)
    for name, grid in config.tasks.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or name.endswith("_trials"):
            raise ConfigError(
                f"tasks.{name}: names a folder; use letters, digits, _ and no _trials at its end"
            )
        _check_overrides(f"tasks.{name}.overrides", grid.overrides)
        if grid.margin is not None and not 0 < grid.margin < math.inf:
            raise ConfigError(f"tasks.{name}.margin = {grid.margin}: expected a number above 0")
        for asked in grid.evaluate:
            if asked != "calibration_error" and asked.split("/")[0] != CORRUPTIONS:
                raise ConfigError(
                    f"tasks.{name}.evaluate: {asked!r}: expected calibration_error, {CORRUPTIONS} "
                    f"or {CORRUPTIONS}/TYPE"
                )
        _check_needed(config, [name], grid)
        _check_tuned(config, name)


def _check_label(label: str, config: CompareConfig) -> None:
    section = "variants" if label in config.variants else "norms"
    if label in config.variants and label in config.norms:
        raise ConfigError(f"variants.{label}: is in norms too; give one of them another label")
    if not re.fullmatch(r"\w[\w.+-]*", label) or re.search(r"_(seed|trial)\w*$", label):
        raise ConfigError(
            f"{section}.{label}: names folders; use letters, digits and ._+-, and do not end it in "
            "_seed... or _trial..."
        )


def _check_overrides(place: str, overrides: Sequence[str]) -> None:
    for text in overrides:
        if text.partition("=")[0] in _OWN_KEYS:
            raise ConfigError(
                f"{place}: {text}: each run has its own; remove it (seeds, output_dir and name of "
                "the comparison decide)"
            )


def _check_tuned(config: CompareConfig, task: str) -> None:
    tuning = config.tuning(task)
    if tuning is None:
        return
    rows = config.rows()
    given = {f"variants.{label}": variant.overrides for label, variant in rows.items()}
    given[f"tasks.{task}"] = config.tasks[task].overrides
    given["the grid"] = config.overrides
    fixed = {
        text.partition("=")[0]: f"{place}.overrides"
        for place, overrides in given.items()
        for text in overrides
    }
    for key in _OWN_KEYS:
        fixed[key] = "the grid"
    check_tuning(tuning, {label: v.tune for label, v in rows.items()}, config.seeds, fixed)


def _check_needed(config: CompareConfig, chain: list[str], grid: TaskGrid) -> None:
    for start, key in needed(grid).items():
        if start not in config.tasks or start in chain:
            others = [t for t in config.tasks if t not in chain]
            raise ConfigError(
                f"tasks.{chain[-1]}.{key} = {start!r}: expected another task here "
                f"that does not lead back; {nearest(start, others)}"
            )
        _check_needed(config, [*chain, start], config.tasks[start])
