"""Names of normalization layers: which there are, what options they take, how to make one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import math
import numbers
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from vision.errors import nearest
from vision.registry import NORMS

NormClass = TypeVar("NormClass", bound=type[nn.Module])
_WORDS = {
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}


def list_norms() -> list[str]:
    """Names of all norms, sorted: the built-in ones and those registered so far."""
    return NORMS.names()


def register_norm(name: str) -> Callable[[NormClass], NormClass]:
    """Class decorator that gives an `nn.Module` class, first argument `dim`, its name.

    Importing the same class again (same module, same qualified name) replaces it.

    Raises:
        ValueError: the name is not lower-case, belongs to another class, or the class does not
            take `dim`.
    """
    if not name or name != name.lower() or name.strip() != name:
        raise ValueError(f"norm name {name!r}: write it in lower case without spaces around it")

    def register(cls: NormClass) -> NormClass:
        if "dim" not in _arguments(cls):
            raise ValueError(f"{cls.__qualname__} must take `dim`, the number of channels")
        return NORMS.register(name)(cls)

    return register


def registered_classes() -> tuple[type[nn.Module], ...]:
    """Classes registered so far, which include those of all norms that a model can hold."""
    return tuple(NORMS.registered.values())


def get_norm(name: str) -> type[nn.Module]:
    """The class registered under `name`; imports the built-in file when first asked.

    Raises:
        ValueError: no such norm; the message lists the names there are.
    """
    return NORMS.get(name)


def norm_options(name: str) -> tuple[str, ...]:
    """Keyword options that `create_norm(name, dim, ...)` takes, in the order of the signature."""
    return tuple(option for option in _arguments(get_norm(name)) if option != "dim")


def create_norm(name: str, dim: int, **options: Any) -> nn.Module:
    """Makes the norm `name` for `dim` channels.

    Args:
        name: One of `list_norms()`.
        dim: Number of channels of the normalized axis.
        **options: See `norm_options(name)`; all built-in norms take `affine`, `channels_first`,
            `device` and `dtype`.

    Raises:
        ValueError: unknown norm, unknown option, or a value that the norm cannot work with.
    """
    cls = get_norm(name)
    valid = {option: kind for option, kind in _arguments(cls).items() if option != "dim"}
    for option, value in options.items():
        if option not in valid:
            raise ValueError(f"norm {name!r} has no option {option!r}; {nearest(option, valid)}")
        if not _fits(value, valid[option]):
            kinds = typing.get_args(valid[option]) or (valid[option],)
            expected = " or ".join(_WORDS.get(kind, str(kind)) for kind in kinds)
            raise ValueError(f"norm {name!r}: {option} = {value!r}: expected {expected}")
    norm = cls(dim, **options)
    if not hasattr(norm, "dim"):
        # a user's class need not keep it, but `convert_norms` asks for it
        norm.dim = dim  # type: ignore[assignment]
    return norm


def load_norm_module(path_or_dotted_name: str) -> None:
    """Imports a user's file (`my_norms.py`) or module (`lab.norms`) so that its norms register.

    Loading the same one again does nothing.

    Raises:
        FileNotFoundError: there is no such file or module.
        ValueError: the file registers no norm.
    """
    name = str(path_or_dotted_name)
    if name.endswith(".py") or "/" in name or "\\" in name:
        _load_file(Path(name).expanduser().resolve())
        return
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists; one that it imports does not
        raise FileNotFoundError(
            f"no module {name!r} on the Python path; for a file give its path, ending in .py"
        ) from error


def _load_file(path: Path) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no norm file {path}; give the path of an existing .py file")
    # the name contains a hash of the whole path, so two files called norms.py are two modules
    name = f"norm_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is not a Python file; give a path that ends in .py")
    module = importlib.util.module_from_spec(spec)
    before = set(NORMS.registered)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        own = any(cls.__module__ == name for cls in NORMS.registered.values())
        if not own and before == set(NORMS.registered):
            raise ValueError(f"{path} registers no norm; decorate its class: @register_norm(name)")
    except BaseException:
        del sys.modules[name]
        raise


def _arguments(cls: type) -> dict[str, Any]:
    """Named arguments of the constructor and their types, Any where it does not say; **kwargs
    stands for those of the next base class."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        constructor = vars(base)["__init__"]
        arguments = list(inspect.signature(constructor).parameters.values())[1:]
        try:
            kinds = typing.get_type_hints(constructor)
        except Exception:  # a user's class may name what is there for a type checker only
            kinds = {}
        for argument in arguments:
            if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
                found.setdefault(argument.name, kinds.get(argument.name, Any))
        if not any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
            break
    return found


def _fits(value: Any, kind: Any) -> bool:
    """Whether an option's value is of its type; of types that no config can give, all are."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool) and not math.isnan(value)
    return isinstance(value, kind) if kind in (bool, str, type(None)) else True
