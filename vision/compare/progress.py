"""How far a comparison is, in a line. Imports no torch."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping


class Progress:
    """Counts cells and estimates the time left from those that have finished, task by task."""

    def __init__(self, tasks: Mapping[str, str], at_once: int) -> None:
        """`tasks`: the task of each cell. `at_once`: how many run beside each other."""
        self._tasks = dict(tasks)
        self._at_once = at_once
        self._states: dict[str, str] = {}
        self._since: dict[str, float] = {}  # of those that run
        self._seconds: dict[str, list[float]] = defaultdict(list)  # of finished ones, by task

    def started(self, cell: str) -> str:
        """A cell runs now. Returns the state of the whole."""
        self._since[cell] = time.monotonic()
        return str(self)

    def ended(self, cell: str, state: str, seconds: float) -> None:
        """A cell is finished, diverged or failed, now or since an earlier call."""
        self._since.pop(cell, None)
        self._states[cell] = state
        if state == "finished":
            self._seconds[self._tasks[cell]].append(seconds)

    def __str__(self) -> str:
        counts = Counter(self._states.values())
        parts = [f"{counts['finished']} of {len(self._tasks)} done"]
        parts += [f"{counts[s]} {s}" for s in ("diverged", "failed") if counts[s]]
        if self._since:
            parts.append(f"{len(self._since)} running")
        if len(self._states) < len(self._tasks):
            parts.append(self._time_left())
        return ", ".join(parts)

    def _time_left(self) -> str:
        now, total, unknown = time.monotonic(), 0.0, set()
        for cell, task in self._tasks.items():
            if cell in self._states:
                continue
            known = self._seconds[task]
            if not known:
                unknown.add(task)
                continue
            total += max(0.0, sum(known) / len(known) - (now - self._since.get(cell, now)))
        minutes = total / self._at_once / 60
        rest = f"and {', '.join(sorted(unknown))}, of which none has ended yet"
        if not total:
            return f"time left unknown: no run of {', '.join(sorted(unknown))} has finished"
        about = "under a minute" if minutes < 1 else f"about {minutes:.0f} min"
        return f"{about} left{f' {rest}' if unknown else ''}"
