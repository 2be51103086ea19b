"""What this package has several of (norms, tasks, metrics), by name. Imports no torch.

Each is one file of a folder, `NAME.py`, which registers one class under its own name. The names are
read from the folder, so a configuration is checked against them before anything is imported.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vision.errors import nearest

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T", bound=Callable[..., Any])
Given = TypeVar("Given", bound=Callable[..., Any])


class Registry(Generic[T]):
    """Classes (or functions) by name: the built-in ones of a package, and those of users.

    Args:
        kind: What one of them is called in messages, such as "norm".
        package: The package (of this one) whose modules register them.
        support: Its modules that register none; packages within it never do.
    """

    def __init__(self, kind: str, package: str, support: Collection[str]) -> None:
        self.kind = kind
        self.package = package
        self.registered: dict[str, T] = {}  # those whose modules were imported
        folder = Path(__file__).parent.joinpath(*package.split(".")[1:])
        self._built_in = frozenset(
            module.name
            for module in pkgutil.iter_modules([str(folder)])
            if module.name not in support and not module.ispkg
        )

    def names(self) -> list[str]:
        """All names, sorted: the built-in ones and those registered so far."""
        return sorted(self._built_in | self.registered.keys())

    def register(self, name: str) -> Callable[[Given], Given]:
        """Decorator that gives a class its name.

        The same class again (same module, same qualified name) replaces it. Raises ValueError for
        a name that belongs to another, be it a built-in one that is not imported yet.
        """

        def decorate(given: Given) -> Given:
            known, built_in = self.registered.get(name), f"{self.package}.{name}"
            owner = _path(known) if known is not None else built_in
            taken = known is not None or name in self._built_in
            if taken and owner not in (_path(given), given.__module__):
                raise ValueError(
                    f"{self.kind} {name!r} is already {owner}; give {_path(given)} another name"
                )
            self.registered[name] = given  # type: ignore[assignment] # its users know the kind
            return given

        return decorate

    def get(self, name: str) -> T:
        """What is registered under `name`; imports the built-in module when first asked.

        Raises ValueError, with the nearest name, where there is none.
        """
        if name not in self.registered and name in self._built_in:
            importlib.import_module(f"{self.package}.{name}")
        if name not in self.registered:
            raise ValueError(f"unknown {self.kind} {name!r}; {nearest(name, self.names())}")
        return self.registered[name]


def _path(given: Callable[..., Any]) -> str:
    return f"{given.__module__}.{given.__qualname__}"


NORMS: Registry[type[nn.Module]] = Registry(
    "norm",
    "vision.norms",
    support=(
        *("registry", "base", "blocks", "calibrate", "carry_over", "conversion"),
        *("convert", "decay", "fused", "least_squares", "recognize", "tokens", "statistics"),
    ),
)
TASKS: Registry[Any] = Registry(
    "task", "vision.tasks", support=("base", "finite", "inputs", "optimizer", "sharding")
)
METRICS: Registry[Any] = Registry("metric", "vision.metrics.generative", support=())
CALLBACKS: Registry[Any] = Registry("task", "vision.training.task_callbacks", support=())
