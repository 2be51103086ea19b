"""Where an interrupted run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vision.checkpoints.read import read_run
from vision.training.callbacks.metrics_csv import read_metrics
from vision.training.messages import say
from vision.training.run_directory import was_saved


class ResumePoint:
    """A checkpoint and its step, read once: it is checked before the model is built, then loaded.

    Reading all of it, and its checksums, takes minutes where it is large and the disk is shared.
    """

    def __init__(self, file: Path) -> None:
        """Raises ValueError if the checkpoint is damaged, or no run's."""
        self.file = file
        self._content: dict[str, Any] | None = read_run(file)
        self.step: int = self._content["global_step"]

    def take(self) -> dict[str, Any] | None:
        """What `read_run` returned, once; it is not kept, as it has the size of the training."""
        content, self._content = self._content, None
        return content


def resume_point(folder: Path, steps_per_epoch: int) -> ResumePoint | None:
    """The newest undamaged checkpoint; None for a run without one yet.

    Raises ValueError if every checkpoint there is damaged, or if they are gone from a run that had
    one, so that nothing is overwritten.
    """
    damage = ""
    for name in ("last.ckpt", "previous.ckpt"):
        file = folder / name
        if not file.exists():
            if file.is_symlink():
                damage = f"{file}: a link to {file.readlink()}, which is not there"
                say(f"resume  skips {damage}")
            continue
        try:
            return ResumePoint(file)
        except ValueError as error:
            say(f"resume  skips {error}")
            damage = str(error)
    if damage:
        raise ValueError(f"name: no whole checkpoint in {folder}: {damage}; move it elsewhere")
    saved = was_saved(folder)
    if saved is None:
        saved = _has_later_rows(folder / "metrics.csv", steps_per_epoch)
    if saved:
        raise ValueError(
            f"name: {folder} was trained in, as its environment.json or metrics.csv shows, and has "
            "neither last.ckpt nor previous.ckpt; put one back, or choose another name=..."
        )
    return None


def _has_later_rows(table: Path, steps_per_epoch: int) -> bool:
    """Whether a run went on after its first epoch, and so after its first checkpoint."""
    return table.exists() and max(read_metrics(table), default=0) >= steps_per_epoch
