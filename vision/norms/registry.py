"""Names of normalization layers: which there are, what options they take, how to make one."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from vision.errors import nearest
from vision.registry import NORMS

NormClass = TypeVar("NormClass", bound=type[nn.Module])


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
    valid = norm_options(name)
    for option in options:
        if option not in valid:
            raise ValueError(f"norm {name!r} has no option {option!r}; {nearest(option, valid)}")
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


def _arguments(cls: type) -> tuple[str, ...]:
    """Named arguments of the constructor; **kwargs stands for those of the next base class."""
    names: dict[str, None] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        arguments = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        named = [a.name for a in arguments if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)]
        names.update(dict.fromkeys(named))
        if not any(argument.kind is argument.VAR_KEYWORD for argument in arguments):
            break
    return tuple(names)
