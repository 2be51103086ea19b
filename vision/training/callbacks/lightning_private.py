"""The only private parts of Lightning that this package uses, as tried with version 2.6.6.

tests/training/callbacks/test_lightning_private.py fails where they change.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from rich.progress import TaskID


class ProgressBar(RichProgressBar):
    """Lightning's bar of the epoch, counted from 1, and one of the whole run, in optimizer steps;
    each with the time that is left."""

    _run: TaskID | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the run's bar, at the step that it starts or goes on from."""
        super().on_train_start(trainer, pl_module)
        if self.progress is not None:
            self._run = self.progress.add_task(
                "Run", total=pl_module.steps, completed=trainer.global_step
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance both."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.progress is not None and self._run is not None:
            self.progress.update(self._run, completed=trainer.global_step)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs} "


def log_step(trainer: pl.Trainer) -> None:
    """Log the metrics of the current step now; Lightning does so after `on_train_batch_end`.

    `Trainer.logged_metrics` would not do: it also holds the last values of earlier epochs.
    """
    trainer._logger_connector.update_train_step_metrics()


def log_epoch(trainer: pl.Trainer) -> None:
    """Log the metrics of the epoch now, in the row of its last step.

    Lightning does so after `on_train_epoch_end`, and then finds nothing left to log.
    """
    loop = trainer.fit_loop.epoch_loop
    trainer._logger_connector.on_epoch_end()  # keeps the values for callbacks
    loop._batches_that_stepped -= 1
    trainer._logger_connector.update_train_epoch_metrics()
    loop._batches_that_stepped += 1


def count_on(trainer: pl.Trainer, batches: int) -> None:
    """Make the epoch that starts one of `batches` batches; Lightning counted the first epoch's."""
    trainer.fit_loop.max_batches = batches
    trainer.val_check_batch = batches


def count_batches_as(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Convert the batch counts of a checkpoint to `accumulate` batches for each optimizer step.

    Lightning resumes at the batch that it counted, and has no setting for another accumulation.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    before, now = progress["total"]["ready"], checkpoint["global_step"] * accumulate
    if before == now:
        return
    for counts in (progress["total"], progress["current"]):
        # a checkpoint between two steps is saved before Lightning counts its batch as completed
        left = counts["ready"] - counts["completed"]
        ready = counts["ready"] * now // before
        counts.update(ready=ready, started=ready, processed=ready, completed=ready - left)


def find_best_in(checkpoint: dict[str, Any], folder: Path) -> None:
    """Tell ModelCheckpoint that its files are in `folder`, wherever they were written.

    Lightning forgets the best score of a run whose directory was moved, and would replace its
    best.ckpt by the next one, however bad.
    """
    here = os.path.realpath(folder)
    for state in checkpoint["callbacks"].values():
        before = state.get("dirpath") if isinstance(state, dict) else None
        if before in (None, here):
            continue

        def moved(path: str, before: str = before) -> str:
            return str(Path(here, os.path.relpath(path, before))) if path else path

        state["dirpath"] = here
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved(state[key])
        state["best_k_models"] = {moved(p): score for p, score in state["best_k_models"].items()}
