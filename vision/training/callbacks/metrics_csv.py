"""metrics.csv, which survives kills and resumes."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from vision.files import written


class MetricsCSV(Logger):
    """One row per step; `save` writes the whole table to a temporary file and renames it.

    Lightning's CSVLogger deletes the table of a run that is resumed. This one keeps it up to the
    checkpoint (`resume_step`); later rows will be logged again.
    """

    name, version = "csv", ""  # required by Lightning

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        super().__init__()
        self.path = path
        self.rows: dict[int, dict[str, float]] = {}
        if resume_step is not None and path.exists():
            # rows count steps from 0, and validation is logged in the row of the next step
            self.rows = {k: v for k, v in read_metrics(path).items() if k <= resume_step}

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """Nothing: the run directory holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Merge `metrics` into the row of `step`."""
        row = self.rows.setdefault(-1 if step is None else step, {})
        row.update({key: float(value) for key, value in metrics.items()})

    @rank_zero_only
    def save(self) -> None:
        """Write all rows; Lightning calls this whenever it has logged."""
        if not self.rows:
            return
        columns = sorted({key for row in self.rows.values() for key in row})
        with written(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["step", *columns])
            writer.writeheader()
            writer.writerows({"step": step, **row} for step, row in sorted(self.rows.items()))

    def finalize(self, status: str) -> None:
        """Write the last rows, after success or failure."""
        self.save()


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """Rows of a `metrics.csv` by step, without empty cells."""
    with path.open(newline="") as file:
        return {
            int(row.pop("step")): {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        }
