"""The grids of images that runs wrote: samples of a DiT, reconstructions of an MAE."""

from __future__ import annotations

from dataclasses import dataclass

from vision.checkpoints.read import find_checkpoint, read_record
from vision.compare.report.collect import Comparison, Run
from vision.compare.report.drawing import embed
from vision.training.callbacks.samples import MAX_CLASSES


@dataclass(frozen=True)
class Sheet:
    """A picture whose columns are named."""

    title: str
    picture: str
    columns: tuple[str, ...]


def sheets(comparison: Comparison, task: str) -> list[Sheet]:
    """The last grid of each variant's first run that has one."""
    found = []
    for label in comparison.config.rows():
        for run in comparison.of(task, label)[:1]:
            for kind, names in (("samples", _classes), ("reconstructions", _reconstruction)):
                files = sorted((run.folder / kind).glob("*.png"))
                if files:
                    title = f"{label}, seed {run.cell.seed}: {kind}"
                    found.append(Sheet(title, embed(files[-1]), names(run)))
    return found


def _classes(run: Run) -> tuple[str, ...]:
    """The classes that the samples' columns are of; none where the run's checkpoint is gone."""
    try:
        record = read_record(find_checkpoint(run.folder))
    except (FileNotFoundError, ValueError, KeyError):
        return ()
    return tuple(record["class_names"][:MAX_CLASSES])


def _reconstruction(run: Run) -> tuple[str, ...]:
    return "original", "masked", "reconstruction"
