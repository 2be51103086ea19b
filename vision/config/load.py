"""YAML files, their bases and `key=value` overrides, merged into one typed `Config`.

Whatever is wrong with them becomes a `ConfigError`: one line that names file, key, value and the
nearest valid choice. Imports no torch, so that errors are instant.
"""

from __future__ import annotations

import dataclasses
import os
import re
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision.config.older import todays
from vision.config.read import Source, read_files, read_override, reject_resolvers
from vision.config.schema import Config, OptimConfig
from vision.config.setting import fault
from vision.errors import ConfigError, first_line, nearest
from vision.files import written
from vision.registry import NORMS

_MOST_REFERENCES = 10
# a section and two of its keys for one quantity
_ALTERNATIVES = (("trainer", "max_steps", "epochs"), ("optim", "lr", "base_lr"))


@dataclass(frozen=True)
class LoadedConfig:
    """A resolved configuration that knows where each key was set."""

    config: Config
    sources: tuple[Source, ...]

    def locate(self, error: Exception) -> ConfigError:
        """`error` as a `ConfigError` that starts with the place of the first key it names."""
        keys = set(leaf_keys(Config))
        for key in re.findall(r"\b[a-z_]+(?:\.[a-z_]+)+|\btask\b|\bname\b|\bseed\b", str(error)):
            if key in keys:
                places = (source.place(key) for source in reversed(self.sources))
                place = next(filter(None, places), None)  # None: the default of the schema
                return ConfigError(f"{place}: {error}" if place else str(error))
        return ConfigError(str(error))

    @contextmanager
    def located(self) -> Iterator[None]:
        """Inside, a ValueError or FileNotFoundError becomes a ConfigError that names its place."""
        try:
            yield
        except ConfigError:
            raise
        except (ValueError, FileNotFoundError) as error:
            raise self.locate(error) from error


def load_config(
    files: Sequence[str | os.PathLike],
    overrides: Sequence[str] = (),
    start: Sequence[Source] = (),
) -> LoadedConfig:
    """Merge `start`, then `files` in order, then `overrides` ("optim.lr=1e-4"); later wins.

    A file may name `base:` files, relative to itself, that it builds on. `name` defaults to the
    stem of the first file, and the norm's name behind it where a later file or override names one.
    A value may refer to another key as ${key}; resolvers (${name:...}), which read the environment
    and more, are refused. Raises ConfigError.
    """
    first = [*start, *read_files(files[:1])]
    later = [*read_files(files[1:]), *(read_override(text) for text in overrides)]
    loaded = LoadedConfig(Config(), tuple(todays(source) for source in (*first, *later)))
    try:
        _reject_two_lengths(loaded.sources)
        config = _merge_all(loaded.sources)
    except OmegaConfBaseException as error:
        reason = f"{error.full_key or 'config'}: {first_line(error)}"
        raise loaded.locate(ValueError(reason)) from None
    except (RecursionError, OverflowError) as error:
        raise ConfigError(
            "config: a value is nested too deeply, refers to itself or is too large "
            f"({first_line(error)})"
        ) from None
    if files and not any("name" in source.tree for source in loaded.sources):
        stem, norm = Path(files[0]).stem, config.norm.name
        laid_over = any("name" in (source.tree.get("norm") or {}) for source in later)
        config.name = f"{stem}_{norm}" if laid_over and not stem.endswith(norm) else stem
    for wrong in _out_of_range(config, own_norms=config.norm.module is not None):
        raise loaded.locate(ValueError(wrong))
    return dataclasses.replace(loaded, config=config)


def save_config(config: Config, path: Path) -> None:
    """Write the resolved `config` as YAML that `load_config` reads back unchanged."""
    with written(path) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


def to_yaml(config: Config) -> str:
    """The whole configuration, defaults included."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def leaf_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a schema class, sections included."""
    for name, kind in typing.get_type_hints(cls).items():
        yield prefix + name
        if dataclasses.is_dataclass(kind):
            yield from leaf_keys(typing.cast(type, kind), f"{prefix}{name}.")


def _merge_all(sources: Sequence[Source]) -> Config:
    merged = OmegaConf.structured(Config)
    for source in sources:
        merged = _merge(merged, source)
    if OmegaConf.to_yaml(merged).count("${") > _MOST_REFERENCES:
        # references to references multiply what they refer to
        raise ConfigError(f"config: more than {_MOST_REFERENCES} values ${{key}}; write some out")
    OmegaConf.resolve(merged)
    return typing.cast(Config, OmegaConf.to_object(merged))


def _reject_two_lengths(sources: Sequence[Source]) -> None:
    """A later file's length of the training replaces an earlier one's; one place gives only one."""
    given: dict[str, dict[str, Any]] = {}
    for source in sources:
        trainer = source.tree.get("trainer")
        lengths = given.setdefault(source.label, {})
        lengths |= trainer if isinstance(trainer, dict) else {}
        epochs, steps = lengths.get("epochs"), lengths.get("max_steps")
        if epochs is not None and steps is not None:
            place = source.place("trainer.max_steps") or source.label
            raise ConfigError(
                f"{place}: trainer.max_steps = {steps}: given beside trainer.epochs = {epochs}; "
                "give one of them"
            )


def _out_of_range(part: Any, own_norms: bool, prefix: str = "") -> Iterator[str]:
    """What is wrong with values of a section; names of norms are left out where a module of the
    user's has others."""
    for field in dataclasses.fields(part):
        key, value = f"{prefix}{field.name}", getattr(part, field.name)
        limits = field.metadata.get("limits", {})
        if dataclasses.is_dataclass(value):
            yield from _out_of_range(value, own_norms, f"{key}.")
        elif not (own_norms and limits.get("among") is NORMS):
            wrong = fault(limits, value)
            if wrong is not None:
                yield f"{key} = {value!r}: {wrong}"


def _merge(config: DictConfig, source: Source) -> DictConfig:
    _reject_unknown(source, source.tree, Config, "")
    reject_resolvers(source.label, source.tree, "")
    norm = source.tree.get("norm") or {}
    if norm.get("name", config.norm.name) != config.norm.name:
        config.norm.options = {}  # options belong to the norm that they were given for
    for section, *keys in _ALTERNATIVES:
        _drop_other(config, source, section, keys)
    try:
        config.merge_with(source.tree)
        return config
    except OmegaConfBaseException as error:
        key = re.sub(r"\[\d+\]", "", error.full_key or "")
        if not key:  # within what has no type, as norm.options
            raise ConfigError(
                f"{source.label}: {source.tree}: keys and values where an earlier source has a "
                "list, or a list where it has these; leave one out"
            ) from None
        place = source.place(key) or source.label
        value = _value(source.tree, key)
        raise ConfigError(f"{place}: {key} = {value!r}: {_expected(key, value)}") from None


def _drop_other(config: DictConfig, source: Source, section: str, keys: Sequence[str]) -> None:
    """Of two keys for one quantity keep the one given later; one place gives only one."""
    tree = source.tree.get(section) or {}
    given = [key for key in keys if tree.get(key) is not None]
    if len(given) == 2:
        first, second = given
        raise ConfigError(
            f"{source.place(f'{section}.{first}')}: {section}.{first} = {tree[first]!r}: {second} "
            f"= {tree[second]!r} is given beside it, for the same quantity; remove one"
        )
    for key in given:
        config[section][keys[0] if key == keys[1] else keys[1]] = None
    if section == "optim" and not given and "base_lr" in tree and config.optim.lr is None:
        config.optim.lr = OptimConfig().lr


def _reject_unknown(source: Source, tree: dict[str, Any], cls: type, prefix: str) -> None:
    hints = typing.get_type_hints(cls)
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise ConfigError(
                f"{source.place(key)}: unknown key '{key}' (value {value!r}); "
                f"{nearest(name, hints)}"
            )
        if not dataclasses.is_dataclass(hints[name]):
            _reject_other_container(source, key, value, hints[name])
            continue
        if not isinstance(value, dict):
            keys = ", ".join(typing.get_type_hints(hints[name]))
            raise ConfigError(
                f"{source.place(key)}: {key} = {value!r}: expected a section with keys {keys}"
            )
        _reject_unknown(source, value, hints[name], f"{key}.")


def _reject_other_container(source: Source, key: str, value: object, kind: Any) -> None:
    """Keys and values for a list, a list for them, or one of these as an item of a list where
    others are expected: omegaconf would not say which key."""
    for part in _alternatives(kind):
        expected = typing.get_origin(part)
        if expected not in (dict, list) or not isinstance(value, (dict, list)):
            continue
        wrong = type(value) is not expected
        if isinstance(value, list) and not wrong:
            item_kind = typing.get_origin(typing.get_args(part)[0])
            wrong = any(_container(item) is not item_kind for item in value)
        if wrong:
            place = source.place(key) or source.label
            raise ConfigError(f"{place}: {key} = {value!r}: {_expected(key, value)}")


def _alternatives(kind: Any) -> Sequence[Any]:
    """The types that a key may have."""
    return typing.get_args(kind) if type(None) in typing.get_args(kind) else (kind,)


def _container(value: object) -> type | None:
    return type(value) if isinstance(value, (dict, list)) else None


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else tree
    return tree


def _expected(key: str, value: object) -> str:
    owner: Any = Config
    *sections, name = key.split(".")
    for section in sections:
        owner = typing.get_type_hints(owner).get(section, owner)
    kind = typing.get_type_hints(owner).get(name)
    kind = next(part for part in _alternatives(kind) if part is not type(None))
    for part in (kind, *typing.get_args(kind)):
        if typing.get_origin(part) is typing.Literal:
            return nearest(value, [str(choice).lower() for choice in typing.get_args(part)])
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    parts = list(typing.get_args(kind)) or [kind]
    described = words.get(parts[0], str(parts[0]))
    if typing.get_origin(kind) is list:
        items = {float: "numbers", str: "names"}.get(parts[0], "keys and values, as [{class: ...}]")
        described = f"a list of {items}"
    if typing.get_origin(kind) is dict:
        described = "keys and values"
    default = getattr(owner(), name, None)
    return f"expected {described}; the default is {default!r}"


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Config files, and `key=value` overrides."""
    overrides = [text for text in arguments if "=" in text]
    return [text for text in arguments if "=" not in text], overrides
