"""YAML files and `key=value` overrides as trees that know their lines. Imports no torch.

What is read may be a stranger's: nothing in it runs, and whatever is wrong with it becomes a
`ConfigError` of one line.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vision.errors import ConfigError

COMMAND_LINE = "command line"
_MOST_FILES = 100  # that a config may be built on
_MOST_ALIASES = 10  # of a YAML file: aliases of aliases multiply what they stand for


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


def read_files(files: Iterable[str | os.PathLike]) -> list[Source]:
    """Each file behind its bases. Raises ConfigError."""
    sources: list[Source] = []
    for file in files:
        for source in _read_file(Path(file), ()):
            sources.append(source)
            if len(sources) > _MOST_FILES:
                raise ConfigError(f"{file}: built on more than {_MOST_FILES} files; use fewer")
    return sources


def _read_file(path: Path, above: tuple[Path, ...]) -> Iterator[Source]:
    """The bases of a YAML file, then itself."""
    try:
        here = path.resolve()
        if here in above:
            raise ConfigError(f"{path}: its base files lead back to itself; remove one `base:`")
        if path.exists() and not path.is_file():  # a device or a pipe might never end
            raise OSError("not a file")
        text = path.read_text(encoding="utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise ConfigError(_unreadable(path, error)) from None
    tree, lines = _parse(text, str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds {type(tree).__name__}, expected keys and values")
    bases = tree.pop("base", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(_is_path(base) for base in bases):
        raise ConfigError(f"{path}: base = {bases!r}: expected a file, or a list of files")
    for base in bases:
        yield from _read_file(Path(os.path.normpath(path.parent / base)), (*above, here))
    module = tree["norm"].get("module") if isinstance(tree.get("norm"), dict) else None
    if (
        isinstance(module, str)
        and _is_path(module)
        and module.endswith(".py")
        and (path.parent / module).is_file()
    ):
        # a run directory keeps the resolved config, which must still find the file
        tree["norm"]["module"] = str((path.parent / str(module)).resolve())
    yield Source(str(path), tree, lines)


def _is_path(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _parse(text: str, label: str) -> tuple[Any, dict[str, int]]:
    """The value of YAML `text`, and the line of each of its keys. Raises ConfigError."""
    try:
        loader = _YamlLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        value = loader.construct_document(node)
        json.dumps(value, default=str)  # not of a value within itself, or of a million digits
        return value, dict(_key_lines(node))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{label}:{mark.line + 1}" if mark and label != COMMAND_LINE else label
        problem = getattr(error, "problem", None) or (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{place}: not valid YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{label}: not valid YAML: nested too deeply") from None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        # what PyYAML raises for `!!int x` or 2020-99-99
        raise ConfigError(f"{label}: not valid YAML: a value that is none ({error})") from None


class _YamlLoader(yaml.SafeLoader):
    """Safe YAML, with 1e-4 read as a number (YAML 1.1 wants 1.0e-4) and no key given twice."""

    aliases = 0

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in names:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{name}' stands twice", node.start_mark
                )
            names.add(name)
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A value, written out or an alias; there may be few of these."""
        self.aliases += self.check_event(yaml.AliasEvent)
        if self.aliases > _MOST_ALIASES:
            raise yaml.YAMLError(f"more than {_MOST_ALIASES} aliases; write some out")
        return super().compose_node(parent, index)


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
        tree, _ = _parse(value, COMMAND_LINE)
    except ConfigError:
        raise ConfigError(f"{COMMAND_LINE}: {key} = {value}: not a valid YAML value") from None
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return Source(COMMAND_LINE, tree, {})


def reject_resolvers(label: str, value: Any, key: str) -> None:
    """Raise ConfigError for ${name:...}, which omegaconf would call, and for parts of one."""
    if isinstance(value, dict):
        for name, part in value.items():
            reject_resolvers(label, part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for part in value:
            reject_resolvers(label, part, key)
    elif isinstance(value, str) and "$" in re.sub(r"\$\{[\w.]+\}", "", value):
        raise ConfigError(
            f"{label}: {key} = {value!r}: a $ only ever begins ${{key}}, and resolvers are not "
            "run; write the value itself, or give it where the shell knows $VARIABLE"
        )


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        choices = [str(p) for p in sorted(path.parent.glob("*.yaml"))] if path.parent else []
        close = difflib.get_close_matches(str(path), choices, n=1)
        return f"{path}: no such file" + (f"; did you mean {close[0]}?" if close else "")
    return f"{path}: cannot be read: {error}"
