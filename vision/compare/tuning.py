"""The search for each variant's settings: the same number of trials for every one. No torch."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from vision.errors import ConfigError

_RANGE = {"low", "high", "log"}


@dataclass
class Tuning:
    """What is searched, and how much of it. Trials never see the test split."""

    # key -> list of values, or {low: 1e-4, high: 1e-2, log: true}, from which values are drawn
    space: dict[str, Any] = field(default_factory=dict)
    trials: int | None = None  # of each variant; null: every combination of the lists
    seeds: list[int] = field(default_factory=lambda: [1000])  # each trial is run with all of these
    draw_seed: int = 0  # of the draws; those of one key are the same for every variant


@dataclass(frozen=True)
class Trial:
    """One setting that is tried, with one seed; values are in the order of the space."""

    values: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def name(self) -> str:
        """A hash of the values, so that a trial keeps its runs where the space is widened."""
        return hashlib.sha256(repr(self.values).encode()).hexdigest()[:8]

    def overrides(self) -> list[str]:
        """The values as arguments of tools/train.py."""
        return [f"{key}={_yaml(value)}" for key, value in self.values]


def make_trials(tuning: Tuning, own: Mapping[str, Any]) -> list[Trial]:
    """The trials of a variant with keys of its `own` in the space, each with every seed."""
    space = _flat({**tuning.space, **own})
    drawn = any(isinstance(values, dict) for values in space.values())
    settings: Sequence[tuple[Any, ...]]
    if drawn:
        assert tuning.trials is not None, "checked"
        columns = [_draw(tuning, key, values) for key, values in space.items()]
        settings = list(zip(*columns, strict=True))
    else:
        settings = list(itertools.product(*space.values()))
        if tuning.trials is not None:
            chosen = random.Random(tuning.draw_seed).sample(range(len(settings)), tuning.trials)
            settings = [settings[i] for i in sorted(chosen)]
    return [
        Trial(tuple(zip(space, setting, strict=True)), seed)
        for setting in settings
        for seed in tuning.seeds
    ]


def edges(values: Mapping[str, Any], tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the winner lies at an end of what was tried: "optim.lr = 0.01, the highest tried"."""
    found = []
    for key, value in values.items():
        others = sorted({t[key] for t in tried if _is_number(t[key])})
        if _is_number(value) and len(others) > 1 and value in (others[0], others[-1]):
            end = "lowest" if value == others[0] else "highest"
            found.append(f"{key} = {value:.4g}, the {end} tried")
    return found


def as_overlay(values: Mapping[str, Any], norm: str | None) -> str:
    """The values as a file that is laid over a configuration.

    With the norm's name, since options belong to the norm that they are given for.
    """
    tree: dict[str, Any] = {}
    named = {"norm.name": norm} if norm is not None else {}
    for key, value in {**named, **values}.items():
        *parents, last = key.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return yaml.safe_dump(tree, sort_keys=False)


def check_tuning(
    tuning: Tuning,
    own: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    fixed: Mapping[str, str],
) -> None:
    """Raise ConfigError for a search that cannot be made, or is not the same for all variants.

    `own`: label -> keys of its own. `seeds`: of the runs that count. `fixed`: keys that are set
    elsewhere, and where.
    """
    if not tuning.seeds or len(set(tuning.seeds)) < len(tuning.seeds):
        raise ConfigError(f"tune.seeds = {tuning.seeds}: expected one or more, each once")
    shared = sorted(set(tuning.seeds) & set(seeds))
    if shared:
        raise ConfigError(
            f"tune.seeds = {tuning.seeds}: {shared[0]} is among seeds too; the winners are trained "
            "with seeds that no trial had"
        )
    if tuning.trials is not None and tuning.trials < 1:
        raise ConfigError(f"tune.trials = {tuning.trials}: expected at least 1")
    sizes = {}
    for label, keys in own.items():
        space = _flat({**tuning.space, **keys})
        if not space:
            raise ConfigError("tune.space is empty; expected key: [values]")
        for key, values in space.items():
            _check_key(key, values, tuning, fixed)
        ranges = any(isinstance(values, dict) for values in space.values())
        sizes[label] = math.inf if ranges else math.prod(map(len, space.values()))
    if tuning.trials is None and len(set(sizes.values())) > 1:
        counts = ", ".join(f"{label} {size}" for label, size in sizes.items())
        raise ConfigError(
            f"tune.trials = null: the variants' spaces have not the same number of combinations "
            f"({counts}); set tune.trials, so that every variant gets as many"
        )
    smallest = min(sizes, key=lambda label: sizes[label])
    if tuning.trials is not None and tuning.trials > sizes[smallest]:
        raise ConfigError(
            f"tune.trials = {tuning.trials}: the space of {smallest} has {sizes[smallest]} "
            "combinations; set it to at most that, or add values"
        )


def _check_key(key: str, values: Any, tuning: Tuning, fixed: Mapping[str, str]) -> None:
    if key in fixed:
        raise ConfigError(f"tune.space.{key}: is set in {fixed[key]} too; remove one of them")
    if isinstance(values, dict):
        if not _is_range(values):
            raise ConfigError(
                f"tune.space.{key} = {values}: expected low below high, and above 0 with log: true"
            )
        if tuning.trials is None:
            raise ConfigError(f"tune.trials = null: how many to draw of {key} = {values}? Set it")
    elif not isinstance(values, list) or not values or _repeats(values):
        raise ConfigError(
            f"tune.space.{key} = {values!r}: expected a list of different values, or "
            "{low: ..., high: ..., log: true}"
        )


def _draw(tuning: Tuning, key: str, values: Any) -> list[Any]:
    """As many values as there are trials, spread evenly over the list or range, in random order."""
    count = tuning.trials or 0
    generator = random.Random(f"{tuning.draw_seed}/{key}")
    if isinstance(values, list):
        repeated = [values[i % len(values)] for i in range(count)]
        generator.shuffle(repeated)
        return repeated
    points = [(i + generator.random()) / count for i in range(count)]  # one in each part
    generator.shuffle(points)
    low, high = values["low"], values["high"]
    if values.get("log"):
        drawn = [low * (high / low) ** point for point in points]
    else:
        drawn = [low + (high - low) * point for point in points]
    return [float(f"{value:.4g}") for value in drawn]


def _flat(space: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys, however the space is nested."""
    found: dict[str, Any] = {}
    for key, value in space.items():
        if isinstance(value, dict) and not ({"low", "high"} & value.keys()):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _is_range(values: Mapping[str, Any]) -> bool:
    low, high = values.get("low"), values.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return False
    return not values.keys() - _RANGE and low < high and (low > 0 or not values.get("log"))


def _repeats(values: list[Any]) -> bool:
    return len({repr(value) for value in values}) < len(values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")
