"""Where an interrupted run goes on."""

from __future__ import annotations

from pathlib import Path

from vision.checkpoints.read import read_step
from vision.training.callbacks.metrics_csv import read_metrics
from vision.training.messages import say


def resume_point(folder: Path, steps_per_epoch: int) -> tuple[Path | None, int | None]:
    """The newest undamaged checkpoint and its step; (None, None) for a run without one yet.

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
            step = read_step(file)
        except ValueError as error:
            say(f"resume  skips {error}")
            damage = str(error)
            continue
        return file, step
    if damage:
        raise ValueError(f"name: no whole checkpoint in {folder}: {damage}; move it elsewhere")
    table = folder / "metrics.csv"
    # a run that was killed in its first epoch may have rows, but has lost nothing
    if table.exists() and max(read_metrics(table), default=0) >= steps_per_epoch:
        raise ValueError(
            f"name: {folder} was trained in, as its metrics.csv shows, and has neither last.ckpt "
            "nor previous.ckpt; put one back, or choose another name=..."
        )
    return None, None
