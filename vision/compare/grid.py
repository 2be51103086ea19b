"""A comparison: norms x tasks x seeds, each cell an ordinary run. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision.config.read import read_files, read_override, reject_resolvers
from vision.errors import ConfigError, first_line, nearest
from vision.files import written


@dataclass
class TaskGrid:
    """One task of the comparison, done with every norm and every seed."""

    configs: list[str] = field(default_factory=list)  # relative to the file that names them
    overrides: list[str] = field(default_factory=list)  # key=value
    init_from: str | None = None  # another task here: start from its run of same norm and seed
    features_from: str | None = None  # another task here; FD uses its baseline run's features
    metric: str = "test/top1"  # what is compared, from summary.json
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

    def from_scratch(self) -> list[str]:
        """The arguments without the run that it starts from, which need not exist yet."""
        arguments = [a for a in self.arguments if not a.startswith("model.init_from=")]
        return [*arguments, "model.init_from_norms=refuse"]


def load_compare(file: str | os.PathLike, overrides: Sequence[str] = ()) -> CompareConfig:
    """The comparison described by `file`; `name` defaults to its stem. Raises ConfigError."""
    merged = OmegaConf.structured(CompareConfig)
    merged.name = Path(file).stem
    for source in [*read_files([file]), *(read_override(text) for text in overrides)]:
        reject_resolvers(source.label, source.tree, "")
        tasks = source.tree.get("tasks")
        for task in tasks.values() if isinstance(tasks, dict) else ():
            configs = task.get("configs") if isinstance(task, dict) else None
            if isinstance(configs, list) and Path(source.label).is_file():
                home = Path(source.label).parent
                task["configs"] = [os.path.normpath(home / str(c)) for c in configs]
        try:
            merged = OmegaConf.merge(merged, source.tree)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{source.label}: {error.full_key}: {first_line(error)}") from None
        except RecursionError:
            raise ConfigError(f"{source.label}: a value is nested too deeply") from None
        except TypeError:  # OmegaConf's, without the key
            raise ConfigError(
                f"{source.label}: expected mappings at norms, tasks and each of them, and lists at "
                "seeds, configs and overrides; one is the other"
            ) from None
    config = typing.cast(CompareConfig, OmegaConf.to_object(merged))
    _check(config, str(file))
    return config


def save_compare(config: CompareConfig, path: Path) -> None:
    """Write `config` as YAML that `load_compare` reads back, with absolute paths of its configs."""
    with written(path) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: CompareConfig, root: Path | None = None) -> str:
    """`config` as YAML; configs in `root` are named as a file that lies there would name them."""

    def named(file: str) -> str:
        path = Path(file).absolute()
        inside = root is not None and path.is_relative_to(root)
        return str(path.relative_to(root)) if inside else str(path)  # type: ignore[arg-type]

    tasks = {
        task: dataclasses.replace(grid, configs=[named(file) for file in grid.configs])
        for task, grid in config.tasks.items()
    }
    return OmegaConf.to_yaml(OmegaConf.structured(dataclasses.replace(config, tasks=tasks)))


def compare_directory(config: CompareConfig) -> Path:
    """Where the comparison lives."""
    return Path(config.output_dir) / config.name


def make_cells(config: CompareConfig) -> dict[str, list[Cell]]:
    """All cells by task; a task comes after those whose runs it uses."""
    cells: dict[str, list[Cell]] = {}
    waiting = dict(config.tasks)
    while waiting:
        ready = next(t for t, grid in waiting.items() if not waiting.keys() & needed(grid).keys())
        del waiting[ready]
        cells[ready] = [
            _cell(config, ready, norm, seed) for norm in config.norms for seed in config.seeds
        ]
    return cells


def needed(grid: TaskGrid) -> dict[str, str]:
    """The tasks whose runs `grid` uses, and the field that names each."""
    return {
        t: key for key in ("init_from", "features_from") if (t := getattr(grid, key)) is not None
    }


def _cell(config: CompareConfig, task: str, norm: str, seed: int) -> Cell:
    root, grid, name = compare_directory(config), config.tasks[task], f"{norm}_seed{seed}"
    options = yaml.safe_dump(
        config.norms[norm], default_flow_style=True, sort_keys=False, width=math.inf
    ).strip()
    arguments = [
        *grid.configs,
        *grid.overrides,
        f"norm.name={norm}",
        f"norm.options={options}",
        f"seed={seed}",
        f"output_dir={root / task}",
        f"name={name}",
    ]
    if grid.init_from is not None:
        arguments.append(f"model.init_from={root / grid.init_from / name}")
    if grid.features_from is not None:  # one for all cells, so that their distances compare
        extractor = root / grid.features_from / f"{config.baseline}_seed{config.seeds[0]}"
        arguments.append(f"evaluation.extractor=run:{extractor}")
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
        _check_needed(config, [name], grid, file)


def _check_needed(config: CompareConfig, chain: list[str], grid: TaskGrid, file: str) -> None:
    for start, key in needed(grid).items():
        if start not in config.tasks or start in chain:
            others = [t for t in config.tasks if t not in chain]
            raise ConfigError(
                f"{file}: tasks.{chain[-1]}.{key} = {start!r}: expected another task here "
                f"that does not lead back; {nearest(start, others)}"
            )
        _check_needed(config, [*chain, start], config.tasks[start], file)
