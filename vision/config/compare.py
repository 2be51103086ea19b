"""A comparison: norms x tasks x seeds, each cell an ordinary run. Imports no torch."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision.config.load import ConfigError, nearest, read_file, read_override


@dataclass
class TaskGrid:
    """One column of the comparison: a job that every norm does with every seed."""

    configs: list[str] = field(default_factory=list)  # relative to the file that names them
    overrides: list[str] = field(default_factory=list)  # key=value
    init_from: str | None = None  # another task here: start from its run of same norm and seed
    figure: str = "test/top1"  # what is compared, from summary.json
    higher_is_better: bool = True


@dataclass
class CompareConfig:
    """The grid. Its directory is `output_dir/name`; a cell's is TASK/NORM_seedSEED in it."""

    name: str = "compare"
    output_dir: str = "runs"
    baseline: str = "layernorm"  # the norm that differences refer to
    norms: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> options
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    tasks: dict[str, TaskGrid] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run of the grid; `arguments` are those of tools/train.py."""

    task: str
    norm: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.task}/{self.folder.name}"


def load_compare(file: str | os.PathLike, overrides: Sequence[str] = ()) -> CompareConfig:
    """The comparison described by `file`; `name` defaults to its stem. Raises ConfigError."""
    merged = OmegaConf.structured(CompareConfig)
    merged.name = Path(file).stem
    for source in [*read_file(Path(file)), *(read_override(text) for text in overrides)]:
        for task in (source.tree.get("tasks") or {}).values():
            if isinstance(task, dict) and "configs" in task and Path(source.label).is_file():
                home = Path(source.label).parent
                task["configs"] = [os.path.normpath(home / str(c)) for c in task["configs"]]
        try:
            merged = OmegaConf.merge(merged, source.tree)
        except OmegaConfBaseException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{source.label}: {error.full_key}: {reason}") from None
    config = typing.cast(CompareConfig, OmegaConf.to_object(merged))
    _check(config, str(file))
    return config


def save_compare(config: CompareConfig, path: Path) -> None:
    """Write `config` as YAML that `load_compare` reads back."""
    temporary = path.with_suffix(".yaml.tmp")
    temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)), encoding="utf-8")
    os.replace(temporary, path)


def compare_directory(config: CompareConfig) -> Path:
    """Where the comparison lives."""
    return Path(config.output_dir) / config.name


def make_cells(config: CompareConfig) -> dict[str, list[Cell]]:
    """All cells by task, tasks in an order in which each follows the one that it starts from."""
    root = compare_directory(config)
    cells: dict[str, list[Cell]] = {}
    waiting = dict(config.tasks)
    while waiting:
        ready = next(t for t, grid in waiting.items() if grid.init_from not in waiting)
        grid = waiting.pop(ready)
        cells[ready] = [
            _cell(root, ready, grid, norm, options, seed)
            for norm, options in config.norms.items()
            for seed in config.seeds
        ]
    return cells


def _cell(
    root: Path, task: str, grid: TaskGrid, norm: str, options: dict[str, Any], seed: int
) -> Cell:
    name = f"{norm}_seed{seed}"
    given = ", ".join(f"{key}: {value}" for key, value in options.items())
    arguments = [
        *grid.configs,
        *grid.overrides,
        f"norm.name={norm}",
        f"norm.options={{{given}}}",
        f"seed={seed}",
        f"output_dir={root / task}",
        f"name={name}",
    ]
    if grid.init_from is not None:
        arguments.append(f"model.init_from={root / grid.init_from / name}")
    return Cell(task, norm, seed, root / task / name, tuple(arguments))


def _check(config: CompareConfig, file: str) -> None:
    for key in ("norms", "seeds", "tasks"):
        if not getattr(config, key):
            raise ConfigError(f"{file}: {key} is empty; expected at least one")
    if config.baseline not in config.norms:
        raise ConfigError(
            f"{file}: baseline = {config.baseline!r}: not among norms; "
            f"{nearest(config.baseline, config.norms)}"
        )
    for name, grid in config.tasks.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ConfigError(f"{file}: tasks.{name}: names a folder; use letters, digits, _")
        chain, start = [name], grid.init_from
        while start is not None:
            if start not in config.tasks or start in chain:
                others = [t for t in config.tasks if t not in chain]
                raise ConfigError(
                    f"{file}: tasks.{chain[-1]}.init_from = {start!r}: expected another task here "
                    f"that does not lead back; {nearest(start, others)}"
                )
            chain.append(start)
            start = config.tasks[start].init_from
