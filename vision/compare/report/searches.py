"""The trials of a task as a table: what won for each variant, and where it lies."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vision.compare.report.collect import Comparison
from vision.compare.winners import Search, tuning_metric


@dataclass(frozen=True)
class SearchTable:
    """One line per variant, as in `titles`."""

    titles: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str


def search_table(comparison: Comparison, task: str) -> SearchTable | None:
    """The searches of a task; None where it is not tuned."""
    config, tuning = comparison.config, comparison.config.tuning(task)
    if tuning is None:
        return None
    found = {label: comparison.search(task, label) for label in config.rows()}
    metric = tuning_metric(config, task)
    titles = ("norm", "best settings", f"their {metric}", "at an end of the range", "trials")
    widen = [label for label, search in found.items() if search.edges]
    note = (
        f"Every variant had the same number of trials, with seeds {_listed(tuning.seeds)}, judged "
        "on the validation split; the best was then trained with the seeds of the comparison."
    )
    if widen:
        note += (
            f" For {', '.join(widen)} the best lies at an end of what was tried: a wider range may "
            "hold a better one."
        )
    return SearchTable(titles, [(label, *_texts(search)) for label, search in found.items()], note)


def _texts(search: Search) -> tuple[str, ...]:
    states = Counter(state for setting in search.tried for state in setting.states)
    others = [f"{n} {state}" for state, n in states.items() if state != "finished"]
    trials = ", ".join([f"{states['finished']} of {states.total()}", *others])
    if search.best is None:
        return "none finished", "-", "-", trials
    settings = ", ".join(f"{key} = {value}" for key, value in search.best.values.items())
    return settings, f"{search.best.value:.4g}", "; ".join(search.edges) or "no", trials


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))
