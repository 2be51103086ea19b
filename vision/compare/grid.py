"""A comparison: variants x tasks x seeds, each cell an ordinary run. Imports no torch."""

from __future__ import annotations

import dataclasses
import math
import os
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision.compare.check import check_compare
from vision.compare.schema import CompareConfig, Variant, needed
from vision.compare.tuning import Trial, make_trials
from vision.config.read import read_files, read_override, reject_resolvers
from vision.errors import ConfigError, first_line
from vision.files import written


@dataclass(frozen=True)
class Cell:
    """One run of the grid; `arguments` are those of tools/train.py."""

    task: str
    variant: str  # its label
    seed: int
    folder: Path
    arguments: tuple[str, ...]
    trial: Trial | None = field(default=None, compare=False)  # None: a run that counts
    tuned: Path | None = None  # file among its arguments that is there when its trials are done

    def __str__(self) -> str:
        return f"{self.task}/{self.folder.name}"

    def from_scratch(self) -> list[str]:
        """The arguments without what earlier runs leave, which need not exist yet."""
        arguments = [a for a in self.arguments if not a.startswith("model.init_from=")]
        if self.tuned is not None and not self.tuned.is_file():
            arguments.remove(str(self.tuned))
        return [*arguments, "model.init_from_norms=refuse"]


def load_compare(file: str | os.PathLike, overrides: Sequence[str] = ()) -> CompareConfig:
    """The comparison described by `file`; `name` defaults to its stem. Raises ConfigError."""
    merged = OmegaConf.structured(CompareConfig)
    merged.name = Path(file).stem
    for source in [*read_files([file]), *(read_override(text) for text in overrides)]:
        reject_resolvers(source.label, source.tree, "")
        if Path(source.label).is_file():
            _find_configs(source.tree, Path(source.label).parent)
        try:
            merged = OmegaConf.merge(merged, source.tree)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{source.label}: {error.full_key}: {first_line(error)}") from None
        except RecursionError:
            raise ConfigError(f"{source.label}: a value is nested too deeply") from None
        except TypeError:  # OmegaConf's, without the key
            raise ConfigError(
                f"{source.label}: expected mappings at norms, variants, tasks and each of them, "
                "and lists at seeds, configs and overrides; one is the other"
            ) from None
    try:
        config = typing.cast(CompareConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:  # ${...}, which is resolved in runs alone
        raise ConfigError(
            f"{file}: {error.full_key}: {first_line(error)}; a ${{...}} that each run resolves has "
            "to be in a file among configs"
        ) from None
    try:
        check_compare(config)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return config


def _find_configs(tree: dict[str, Any], home: Path) -> None:
    """Make the files that the grid names, relative to `home`, ones that can be opened."""
    if isinstance(tree.get("costs"), str):
        tree["costs"] = os.path.normpath(home / tree["costs"])
    for section in (tree.get("tasks"), tree.get("variants")):
        for part in section.values() if isinstance(section, dict) else ():
            configs = part.get("configs") if isinstance(part, dict) else None
            if isinstance(configs, list):
                part["configs"] = [os.path.normpath(home / str(c)) for c in configs]


def save_compare(config: CompareConfig, path: Path) -> None:
    """Write `config` as YAML that `load_compare` reads back, with absolute paths of its files."""
    with written(path) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: CompareConfig, root: Path | None = None) -> str:
    """`config` as YAML; files in `root` are named as a file that lies there would name them."""

    def named(file: str) -> str:
        path = Path(file).absolute()
        inside = root is not None and path.is_relative_to(root)
        return str(path.relative_to(root)) if inside else str(path)  # type: ignore[arg-type]

    parts: dict[str, Any] = {
        section: {
            label: dataclasses.replace(part, configs=[named(file) for file in part.configs])
            for label, part in getattr(config, section).items()
        }
        for section in ("tasks", "variants")
    }
    if config.costs is not None:
        parts["costs"] = named(config.costs)
    return OmegaConf.to_yaml(OmegaConf.structured(dataclasses.replace(config, **parts)))


def compare_directory(config: CompareConfig) -> Path:
    """Where the comparison lives."""
    return Path(config.output_dir) / config.name


def make_cells(config: CompareConfig) -> dict[str, list[Cell]]:
    """All cells by stage, each after those whose runs it uses.

    A stage is a task, or, before a task that is tuned, its trials, under TASK_trials.
    """
    cells: dict[str, list[Cell]] = {}
    waiting = dict(config.tasks)
    while waiting:
        ready = next(t for t, grid in waiting.items() if not waiting.keys() & needed(grid).keys())
        del waiting[ready]
        if config.tuning(ready) is not None:
            cells[f"{ready}_trials"] = [
                _cell(config, ready, label, trial.seed, trial)
                for label in config.rows()
                for trial in trials(config, ready, label)
            ]
        cells[ready] = [
            _cell(config, ready, label, seed) for label in config.rows() for seed in config.seeds
        ]
    return cells


def trials(config: CompareConfig, task: str, label: str) -> list[Trial]:
    """The trials of one variant in one task, each with every tuning seed."""
    tuning = config.tuning(task)
    return [] if tuning is None else make_trials(tuning, config.rows()[label].tune)


def tuned_file(root: Path, task: str, label: str) -> Path:
    """Where the settings that won a variant's trials are written, as an overlay of its runs."""
    return root / task / "tuned" / f"{label}.yaml"


def _cell(
    config: CompareConfig, task: str, label: str, seed: int, trial: Trial | None = None
) -> Cell:
    root, grid, variant = compare_directory(config), config.tasks[task], config.rows()[label]
    name = f"{label}_seed{seed}" if trial is None else f"{label}_trial{trial.name}_seed{seed}"
    tuned = None
    if trial is None and config.tuning(task) is not None:
        tuned = tuned_file(root, task, label)
    arguments = [
        *grid.configs,
        *variant.configs,
        *([str(tuned)] if tuned else []),
        *config.overrides,
        *grid.overrides,
        *_norm(label, variant),
        *variant.overrides,
        *(trial.overrides() if trial else ()),
        f"seed={seed}",
        f"output_dir={root / task}",
        f"name={name}",
    ]
    if trial is not None:
        arguments.append("data.test_split=null")  # they are judged on the validation split
    if grid.init_from is not None:
        # trials start from one run for all: their seeds have none of their own
        start = name if trial is None else f"{label}_seed{config.seeds[0]}"
        arguments.append(f"model.init_from={root / grid.init_from / start}")
    if grid.features_from is not None:  # one for all cells, so that their distances compare
        extractor = root / grid.features_from / f"{config.baseline}_seed{config.seeds[0]}"
        arguments.append(f"evaluation.extractor=run:{extractor}")
    return Cell(task, label, seed, root / task / name, tuple(arguments), trial, tuned)


def _norm(label: str, variant: Variant) -> list[str]:
    """The overrides that name a variant's norm, unless its files do."""
    arguments = []
    if norm_name(label, variant) is not None:
        arguments.append(f"norm.name={norm_name(label, variant)}")
    if arguments or variant.options:
        options = yaml.safe_dump(
            variant.options, default_flow_style=True, sort_keys=False, width=math.inf
        )
        arguments.append(f"norm.options={options.strip()}")
    return arguments


def norm_name(label: str, variant: Variant) -> str | None:
    """What the grid calls a variant's norm; None where its files name it."""
    named = any(source.place("norm.name") for source in read_files(variant.configs))
    return variant.norm or (None if named else label)
