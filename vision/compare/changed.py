"""Runs of an earlier call whose settings are not those of the grid."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision.compare.grid import Cell, compare_directory
from vision.compare.schema import CompareConfig
from vision.config import Config, load_config
from vision.config.load import split_arguments
from vision.errors import ConfigError
from vision.training.run_directory import changed_settings


def check_unchanged(cells: Mapping[str, Sequence[Cell]]) -> None:
    """Raise ConfigError where a run is not what its cell would be today, with what differs."""
    changed = find_changed(cells)
    if not changed:
        return
    cell, difference = next(iter(changed.items()))
    more = f" ({len(changed) - 1} more cells differ)" if len(changed) > 1 else ""
    raise ConfigError(
        f"{cell.folder}: {difference}{more}; set the grid back, choose another name=..., or run "
        "these cells again with --rerun, which puts the runs that are there aside"
    )


def find_changed(cells: Mapping[str, Sequence[Cell]]) -> dict[Cell, str]:
    """The cells whose run differs from the grid, and in what."""
    found = {cell: _difference(cell) for column in cells.values() for cell in column}
    return {cell: difference for cell, difference in found.items() if difference is not None}


def put_aside_changed(config: CompareConfig, cells: Mapping[str, Sequence[Cell]]) -> list[Path]:
    """Move runs that differ from the grid, and those that began with what they learned, to
    `replaced/`; returns their new places."""
    changed = set(find_changed(cells))
    for column in cells.values():  # each stage comes after those that it needs
        changed |= {cell for cell in column if any(_uses(cell, other) for other in changed)}
    root = compare_directory(config)
    target = root / "replaced" / time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    moved = []
    for cell in sorted(changed, key=str):
        if cell.folder.exists():
            place = target / cell.task / cell.folder.name
            place.parent.mkdir(parents=True, exist_ok=True)
            moved.append(cell.folder.rename(place))
    return moved


def _uses(cell: Cell, other: Cell) -> bool:
    used = (f"model.init_from={other.folder}", f"evaluation.extractor=run:{other.folder}")
    return any(argument in cell.arguments for argument in used)


def _difference(cell: Cell) -> str | None:
    file = cell.folder / "config.yaml"
    if not file.is_file():
        return None
    given = load_config(*split_arguments(cell.arguments)).config
    try:
        saved = load_config([file]).config
    except ConfigError as error:
        return f"the run's settings cannot be read ({error})"
    for key, old, new in changed_settings(saved, given):
        # a directory that was moved with all its runs is the same
        if _in_place(old, saved) != _in_place(new, given):
            return f"{key} = {old!r} in the run, {new!r} in the grid"
    return None


def _in_place(value: Any, config: Config) -> Any:
    home = str(Path(config.output_dir).parent)
    return value.replace(home, "DIRECTORY", 1) if isinstance(value, str) else value
