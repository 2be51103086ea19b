"""Metrics as CSV that survive kills and resumes."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from vision.files import written


class MetricsCSV(Logger):
    """One row per step in `metrics.csv`, rewritten whole under a temporary name and renamed.

    Lightning's CSVLogger deletes the file of the run that it resumes; this one reads it back and
    drops only what came after the checkpoint (`resume_step`), which will be logged again.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, float]] = {}
        if resume_step is not None and path.exists():
            # validation is logged at the step that comes next: the row of resume_step is kept too
            self.rows = {k: v for k, v in read_metrics(path).items() if k <= resume_step}

    @property
    def name(self) -> str:
        """Required by Lightning."""
        return "csv"

    @property
    def version(self) -> str:
        """Required by Lightning."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """The run directory holds the config already."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Merge `metrics` into the row of `step`."""
        row = self.rows.setdefault(-1 if step is None else step, {})
        row.update({key: float(value) for key, value in metrics.items()})

    @rank_zero_only
    def save(self) -> None:
        """Write all rows; Lightning calls this after each epoch and at the end."""
        if not self.rows:
            return
        columns = sorted({key for row in self.rows.values() for key in row})
        with written(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *columns])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))

    def finalize(self, status: str) -> None:
        """Write what is left, after success as after a failure."""
        self.save()


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Rows of a `metrics.csv` by step, without the cells that are empty."""
    with path.open(newline="") as file:
        return {
            int(row.pop("step")): {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        }
