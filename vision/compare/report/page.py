"""One self-contained HTML page."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vision.compare.report import pictures
from vision.compare.report.again import how_to_run_again
from vision.compare.report.collect import Comparison
from vision.compare.report.findings import finding, notes
from vision.compare.report.heat_maps import HeatMap, heat_maps
from vision.compare.report.published import PUBLISHED
from vision.compare.report.results import TaskResult, task_results
from vision.compare.report.searches import SearchTable, search_table
from vision.compare.report.sheets import Sheet, sheets
from vision.compare.report.tables import (
    Row,
    make_rows,
    row_texts,
    titles,
    to_csv,
    to_latex,
    to_markdown,
)
from vision.config import Config, load_config
from vision.config.load import leaf_keys
from vision.files import written
from vision.text import printable

# drawn over training where a task logs them
_CURVES = ("train/loss", "val/loss", "val/top1", "val/knn_top1")


_FORMS = (to_markdown, to_latex, to_csv)
ENDINGS = ("html", "md", "tex", "csv")  # of the report's files, the page first


@dataclass(frozen=True)
class Section:
    """One task on the page; pictures are (title, address)."""

    task: str
    finding: str  # by the task's metric
    further: list[str]  # by those of the evaluations
    forest: tuple[str, str] | None
    notes: list[str]
    titles: list[str]
    tables: list[tuple[str, list[tuple[Row, list[str]]]]]  # rows by metric, the task's first
    searches: SearchTable | None
    charts: list[tuple[str, str]]
    sheets: list[Sheet]
    maps: list[HeatMap]
    settings: list[tuple[str, list[str]]]  # keys that differ between variants, value by variant


def write_report(comparison: Comparison, target: Path) -> list[Path]:
    """Write `report.html`, `.md`, `.tex` and `.csv` into `target`; returns their paths."""
    results = {task: task_results(comparison, task) for task in comparison.config.tasks}
    rows = make_rows(comparison, results)
    target.mkdir(parents=True, exist_ok=True)
    page = render(comparison, rows, results)
    paths = []
    for ending, text in zip(ENDINGS, (page, *(form(rows) for form in _FORMS)), strict=True):
        path = target / f"report.{ending}"
        with written(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def render(comparison: Comparison, rows: list[Row], results: dict[str, list[TaskResult]]) -> str:
    """The page as text."""
    environment = Environment(
        loader=PackageLoader("vision.compare.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    return environment.get_template("page.html").render(
        comparison=comparison,
        sections=[
            _section(comparison, task, [row for row in rows if row.task == task], found)
            for task, found in results.items()
        ],
        troubles=[run for run in comparison.runs if run.state != "finished"],
        published=PUBLISHED,
        again=how_to_run_again(comparison),
        versions=_versions(comparison),
    )


def _shown(value: Any) -> Any:
    """What the page prints, without control characters other than line breaks."""
    return "\n".join(map(printable, value.split("\n"))) if type(value) is str else value


def _section(
    comparison: Comparison, task: str, rows: list[Row], results: list[TaskResult]
) -> Section:
    metric = comparison.config.tasks[task].metric
    by = [[row for row in rows if row.metric == r.metric.name] for r in results]
    charts = [(f"{metric}: each mark a seed", pictures.seed_dots(comparison, task))]
    if comparison.config.tuning(task) is not None:
        title = "best trial at each value, on the validation split"
        charts.append((title, pictures.tuning_curve(comparison, task)))
    for name in _CURVES:
        curve = pictures.training_curve(comparison, task, name)
        charts.append((f"{name}: mean and range over seeds", curve))
    corrupted = pictures.corruptions_by_type(comparison, task)
    charts.append(("under corruptions, type by type: mean over seeds", corrupted))
    answer, *further = (finding(comparison, task, *pair) for pair in zip(by, results, strict=True))
    return Section(
        task,
        answer,
        further,
        _forest(comparison, task, by[0]),
        notes(comparison, task, rows, results),
        titles(rows)[1:],
        [(some[0].metric, [(row, row_texts(row, rows)[1:]) for row in some]) for some in by],
        search_table(comparison, task),
        [(title, picture) for title, picture in charts if picture is not None],
        sheets(comparison, task),
        heat_maps(comparison, task),
        _differing_settings(comparison, task),
    )


def _forest(comparison: Comparison, task: str, rows: list[Row]) -> tuple[str, str] | None:
    """The forest plot and what it shows, for those who do not see it."""
    picture = pictures.forest(comparison, task, rows)
    if picture is None:
        return None
    shown = [
        f"{r.variant} {row_texts(r, rows)[2]} {r.verdict}" for r in rows if r.effect is not None
    ]
    baseline = comparison.config.baseline
    return f"{task}: differences to {baseline}: {'; '.join(shown)}", picture


def _differing_settings(comparison: Comparison, task: str) -> list[tuple[str, list[str]]]:
    """Settings besides the norm that differ: from the first run of each variant, key by key."""
    found: list[dict[str, Any]] = []
    for variant in comparison.config.rows():
        files = [run.folder / "config.yaml" for run in comparison.of(task, variant)]
        file = next((f for f in files if f.is_file()), None)
        config = load_config([file]).config if file else Config()
        found.append({key: _get(config, key) for key in leaf_keys(Config)} if file else {})
    expected = ("norm", "name", "output_dir", "seed", "model.init_from")
    return [
        (key, [str(values.get(key, "-")) for values in found])
        for key in leaf_keys(Config)
        if not key.startswith(expected)
        and not dataclasses.is_dataclass(_get(Config(), key))
        and len({str(values[key]) for values in found if values}) > 1
    ]


def _get(config: Config, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), config)


def _versions(comparison: Comparison) -> list[tuple[str, list[str]]]:
    """Every version, commit and device that the runs recorded."""
    seen: dict[str, set[str]] = {}
    for run in comparison.runs:
        flat: dict[str, Any] = {**run.environment, **run.environment.get("packages", {})}
        for key, value in flat.items():
            if key not in ("packages", "command", "time", "resumed_from_step", "saved"):
                seen.setdefault(key, set()).add(str(value))
    return [(key, sorted(values)) for key, values in seen.items()]
