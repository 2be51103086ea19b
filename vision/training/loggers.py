"""Where metrics and pictures go besides `metrics.csv`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import Tensor

from vision.config import Config
from vision.notices import notice
from vision.pictures import write_png


def open_loggers(config: Config, folder: Path, resume_step: int | None) -> list[Logger]:
    """TensorBoard, and those of `trainer.loggers`. Raises ValueError for what is no logger."""
    purge = None if resume_step is None else resume_step + 1
    loggers: list[Logger] = [
        TensorBoardLogger(folder, name="tensorboard", version="", purge_step=purge)
    ]
    for entry in config.trainer.loggers:
        loggers.append(_user_logger(dict(entry)))
    return loggers


def log_picture(trainer: pl.Trainer, name: str, draw: Callable[[], Tensor], file: Path) -> None:
    """Write what `draw` returns, [3, H, W] from 0 to 1, to a PNG file and to TensorBoard as `name`.

    A picture that is not finite is left out with a word: the loss tells whether training goes on.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        picture = draw()
        write_png(picture, file)
    except FloatingPointError as error:
        notice(f"{file}: not drawn: {error}")
        return
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, trainer.global_step)


def _user_logger(entry: dict[str, Any]) -> Logger:
    path = str(entry.pop("class", ""))
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(__import__(module, fromlist=[name]), name)
        if not (isinstance(cls, type) and issubclass(cls, Logger)):
            raise TypeError("it is no logger")  # nothing else is ever called
        return cls(**entry)
    except (ImportError, AttributeError, ValueError, TypeError, ModuleNotFoundError) as error:
        raise ValueError(
            f"trainer.loggers = {path!r}: cannot be made ({error}); expected `class:` with the "
            "path of a Lightning logger, and its arguments"
        ) from error
