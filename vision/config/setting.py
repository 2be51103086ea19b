"""Fields of the schema that say what they may hold; the loader checks it."""

from __future__ import annotations

import copy
import dataclasses
import operator
import re
from collections.abc import Collection
from typing import Any

from vision.errors import nearest
from vision.registry import Registry

_BOUNDS = {
    "more_than": (operator.gt, "more than {}"),
    "at_least": (operator.ge, "{} or more"),
    "less_than": (operator.lt, "less than {}"),
    "at_most": (operator.le, "at most {}"),
}


def setting(default: Any, **limits: Any) -> Any:
    """A dataclass field with `default`, which is copied for each instance, and its limits.

    Args:
        default: Its type is that of the field's annotation; None is never checked.
        **limits: `more_than`, `at_least`, `less_than`, `at_most`: bounds of the number, or of each
            number of a list; NaN is within none. `length`: of the list. `among`: a `Registry`, or
            names, one of which (for a list: some of which) it is. `matches`: a regular expression
            for the whole text, with `expected`, which says it in words.
    """
    return dataclasses.field(
        default_factory=lambda: copy.copy(default), metadata={"limits": limits}
    )


def fault(limits: dict[str, Any], value: Any) -> str | None:
    """What is wrong with `value`, for the end of an error message; None if nothing is."""
    values = value if isinstance(value, list) else [value]
    if value is None:
        return None
    if "among" in limits:
        return _unknown(limits["among"], values)
    if "matches" in limits:
        return None if re.fullmatch(limits["matches"], value) else f"expected {limits['expected']}"
    if len(values) != limits.get("length", len(values)):
        return f"expected {limits['length']} numbers"
    bounds = {name: limit for name, limit in limits.items() if name in _BOUNDS}
    if all(_BOUNDS[name][0](v, limit) for name, limit in bounds.items() for v in values):
        return None
    if bounds.keys() == {"at_least", "at_most"}:
        return "expected a number from {at_least} to {at_most}".format(**bounds)
    return "expected " + ", and ".join(_BOUNDS[n][1].format(limit) for n, limit in bounds.items())


def _unknown(among: Registry | Collection[str], values: list[str]) -> str | None:
    names = among.names() if isinstance(among, Registry) else among
    kind = among.kind if isinstance(among, Registry) else "choice"
    for value in values:
        if value not in names:
            return f"no such {kind}; {nearest(value, names)}"
    return None if values else f"expected some of {', '.join(names)}"
