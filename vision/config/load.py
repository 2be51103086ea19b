"""YAML files, their bases and `key=value` overrides, merged into one typed `Config`.

Whatever is wrong with them becomes a `ConfigError`: one line that names file, key, value and the
nearest valid choice. Imports no torch, so that errors are instant.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vision.config.schema import Config

COMMAND_LINE = "command line"


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line for the person who wrote it."""


@dataclass(frozen=True)
class Source:
    """One YAML file, or one override: its keys, and the line each stands on."""

    label: str
    tree: dict[str, Any]
    lines: dict[str, int]

    def place(self, key: str) -> str | None:
        """`file:line` where `key` (dotted) is set here, or None."""
        node: Any = self.tree
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return None
            node = node[part]
        return f"{self.label}:{self.lines[key]}" if key in self.lines else self.label


@dataclass(frozen=True)
class LoadedConfig:
    """A resolved configuration that knows where each key was set."""

    config: Config
    sources: tuple[Source, ...]

    def locate(self, error: Exception) -> ConfigError:
        """`error` as a `ConfigError` that starts with the place of the first key it names."""
        keys = set(leaf_keys(Config))
        for key in re.findall(r"[a-z_]+(?:\.[a-z_]+)+|\btask\b|\bname\b", str(error)):
            if key in keys:
                places = (source.place(key) for source in reversed(self.sources))
                place = next(filter(None, places), None)  # None: the default of the schema
                return ConfigError(f"{place}: {error}" if place else str(error))
        return ConfigError(str(error))


def load_config(
    files: Sequence[str | os.PathLike],
    overrides: Sequence[str] = (),
    start: Sequence[Source] = (),
) -> LoadedConfig:
    """Merge `start`, then `files` in order, then `overrides` ("optim.lr=1e-4"); later wins.

    A file may name `base:` files, relative to itself, that it builds on. `name` defaults to the
    stem of the first file. Raises ConfigError.
    """
    sources = [*start, *(source for file in files for source in read_file(Path(file)))]
    sources += [read_override(text) for text in overrides]
    merged = OmegaConf.structured(Config)
    if files:
        merged.name = Path(files[0]).stem
    for source in sources:
        merged = _merge(merged, source)
    loaded = LoadedConfig(Config(), tuple(sources))
    try:
        OmegaConf.resolve(merged)
        config = typing.cast(Config, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise loaded.locate(ValueError(f"{error.full_key or 'config'}: {reason}")) from None
    return dataclasses.replace(loaded, config=config)


def save_config(config: Config, path: Path) -> None:
    """Write the resolved `config` as YAML that `load_config` reads back unchanged."""
    temporary = path.with_suffix(".yaml.tmp")
    temporary.write_text(to_yaml(config), encoding="utf-8")
    os.replace(temporary, path)


def to_yaml(config: Config) -> str:
    """The whole configuration, defaults included."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def leaf_keys(cls: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields of a schema class, sections included."""
    for name, kind in typing.get_type_hints(cls).items():
        yield prefix + name
        if dataclasses.is_dataclass(kind):
            yield from leaf_keys(typing.cast(type, kind), f"{prefix}{name}.")


def nearest(value: object, choices: Iterable[str]) -> str:
    """'did you mean X?' and the choices where they are few; for the end of an error message."""
    names = list(choices)
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'?" if close else ""
    listed = f"valid: {', '.join(names)}" if len(names) <= 24 or not close else ""
    return " ".join(filter(None, [hint, f"({listed})" if hint and listed else listed]))


def read_file(path: Path, above: tuple[Path, ...] = ()) -> Iterator[Source]:
    """The bases of a YAML file, then itself. Raises ConfigError."""
    if path.resolve() in above:
        raise ConfigError(f"{path}: its base files lead back to itself; remove one `base:`")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_unreadable(path, error)) from None
    try:
        tree = yaml.load(text, Loader=_YamlLoader)
        node = yaml.compose(text, Loader=_YamlLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, expected keys and values")
    bases = tree.pop("base", None) or []
    for base in [bases] if isinstance(bases, str) else bases:
        below = Path(os.path.normpath(path.parent / str(base)))
        yield from read_file(below, (*above, path.resolve()))
    module = tree["norm"].get("module") if isinstance(tree.get("norm"), dict) else None
    if isinstance(module, str) and module.endswith(".py") and (path.parent / module).is_file():
        # a run directory keeps the resolved config, which must still find the file
        tree["norm"]["module"] = str((path.parent / module).resolve())
    yield Source(str(path), tree, dict(_key_lines(node)) if node is not None else {})


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML, with 1e-4 read as a number (YAML 1.1 wants 1.0e-4) and no key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{name}' stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _key_lines(node: yaml.Node, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield f"{prefix}{key.value}", key.start_mark.line + 1
            yield from _key_lines(value, f"{prefix}{key.value}.")


def read_override(text: str) -> Source:
    """`key.key=value`, the value in YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{COMMAND_LINE}: '{text}': expected key=value, as in optim.lr=1e-4")
    try:
        tree: Any = yaml.load(value, Loader=_YamlLoader)
    except yaml.YAMLError:
        raise ConfigError(f"{COMMAND_LINE}: {key} = {value}: not a valid YAML value") from None
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return Source(COMMAND_LINE, tree, {})


def _merge(config: DictConfig, source: Source) -> DictConfig:
    _reject_unknown(source, source.tree, Config, "")
    norm = source.tree.get("norm") or {}
    if norm.get("name", config.norm.name) != config.norm.name:
        config.norm.options = {}  # options belong to the norm that they were given for
    try:
        return typing.cast(DictConfig, OmegaConf.merge(config, source.tree))
    except OmegaConfBaseException as error:
        key = re.sub(r"\[\d+\]", "", error.full_key or "")
        place = source.place(key) or source.label
        value = _value(source.tree, key)
        raise ConfigError(f"{place}: {key} = {value!r}: {_expected(key, value)}") from None


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
            continue
        if not isinstance(value, dict):
            keys = ", ".join(typing.get_type_hints(hints[name]))
            raise ConfigError(
                f"{source.place(key)}: {key} = {value!r}: expected a section with keys {keys}"
            )
        _reject_unknown(source, value, hints[name], f"{key}.")


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
    if typing.get_origin(kind) is typing.Literal:
        return nearest(value, map(str, typing.get_args(kind)))
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    parts = [arg for arg in typing.get_args(kind) if arg is not type(None)] or [kind]
    described = words.get(parts[0], str(parts[0]))
    if typing.get_origin(kind) is list:
        described = "a list of numbers" if parts == [float] else "a list of keys and values"
    if typing.get_origin(kind) is dict:
        described = "keys and values"
    default = getattr(owner(), name, None)
    return f"expected {described}; the default is {default!r}"


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        choices = [str(p) for p in sorted(path.parent.glob("*.yaml"))] if path.parent else []
        close = difflib.get_close_matches(str(path), choices, n=1)
        return f"{path}: no such file" + (f"; did you mean {close[0]}?" if close else "")
    return f"{path}: cannot be read: {error}"
