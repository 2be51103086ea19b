"""What `convert_norms` did to a model, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Conversion:
    """What `convert_norms` did.

    Attributes:
        swapped: (qualified name, old type, new type) of each norm; a norm that the model holds
            under several names is listed under the first.
        skipped: (qualified name, type, reason) of each norm left as it was.
        notes: What else there is to say about the new norms.
        lost: (qualified name, "scale" or "shift") of what a new norm has no place for.
    """

    swapped: tuple[tuple[str, str, str], ...]
    skipped: tuple[tuple[str, str, str], ...] = ()
    notes: tuple[str, ...] = ()
    lost: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        new = " and ".join(dict.fromkeys(kind for _, _, kind in self.swapped))
        old = tally((old for _, old, _ in self.swapped), "{n} {kind}")
        text = f"{count(len(self.swapped))} -> {new}: {old}"
        if self.skipped:
            text += f"; {len(self.skipped)} left: {left(self.skipped)}"
        if self.lost:
            counts = tally((role for _, role in self.lost), "the learned {kind} of {n}")
            text += f"; lost, as {new} has none: {counts}"
        return "; ".join([text, *self.notes])


def left(skipped: Iterable[tuple[str, str, str]]) -> str:
    """Where norms stay, by reason."""
    places: dict[str, list[str]] = {}
    for name, _, reason in skipped:
        places.setdefault(reason, []).append(name)
    return "; ".join(
        f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)} ({why})"
        for why, names in places.items()
    )


def count(n: int) -> str:
    """So many norms, in words."""
    return f"{n} norm" if n == 1 else f"{n} norms"


def tally(types: Iterable[str], form: str) -> str:
    """Each of the types with its number, the most frequent first, as `form` says."""
    return ", ".join(form.format(n=n, kind=kind) for kind, n in Counter(types).most_common())
