"""Where figures go besides `metrics.csv`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger

from vision.config import Config


def open_loggers(config: Config, folder: Path, resume_step: int | None) -> list[Logger]:
    """TensorBoard, and those of `trainer.loggers`. Raises ValueError for one that is none."""
    purge = None if resume_step is None else resume_step + 1
    loggers: list[Logger] = [
        TensorBoardLogger(folder, name="tensorboard", version="", purge_step=purge)
    ]
    for entry in config.trainer.loggers:
        loggers.append(_user_logger(dict(entry)))
    return loggers


def _user_logger(entry: dict[str, Any]) -> Logger:
    path = str(entry.pop("class", ""))
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(__import__(module, fromlist=[name]), name)
        if not (isinstance(cls, type) and issubclass(cls, Logger)):
            raise TypeError("it is no logger")  # nor is anything else ever called
        return cls(**entry)
    except (ImportError, AttributeError, ValueError, TypeError, ModuleNotFoundError) as error:
        raise ValueError(
            f"trainer.loggers = {path!r}: cannot be made ({error}); expected `class:` with the "
            "path of a Lightning logger, and its arguments"
        ) from error
