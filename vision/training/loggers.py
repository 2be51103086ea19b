"""Where metrics and pictures go besides `metrics.csv`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch import Tensor

from vision.config import Config
from vision.errors import first_line
from vision.notices import notice
from vision.pictures import write_png


def tensorboard(folder: Path, resume_step: int | None) -> Logger:
    """TensorBoard in the run directory, from after the step at which a run goes on."""
    purge = None if resume_step is None else resume_step + 1
    return TensorBoardLogger(folder, name="tensorboard", version="", purge_step=purge)


def make_loggers(config: Config) -> list[Logger]:
    """Those of `trainer.loggers`; they write nothing yet. Raises ValueError for what is none."""
    return [_make_logger(dict(entry)) for entry in config.trainer.loggers]


def start_loggers(loggers: Sequence[Logger]) -> None:
    """Open the experiments of `loggers` on rank 0, which takes the rest of their arguments.

    Raises ValueError where one cannot be opened.
    """
    for logger in loggers:
        try:
            getattr(logger, "experiment", None)
        except Exception as error:  # each service has its own
            cls = type(logger)
            raise _refusal(f"{cls.__module__}.{cls.__name__}", error) from error


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


def _make_logger(entry: dict[str, Any]) -> Logger:
    path = str(entry.pop("class", ""))
    module, _, name = path.rpartition(".")
    try:
        cls = getattr(__import__(module, fromlist=[name]), name)
        if not (isinstance(cls, type) and issubclass(cls, Logger)):
            raise TypeError("it is no logger")  # nothing else is ever called
        return cls(**entry)
    except Exception as error:  # each service has its own
        raise _refusal(path, error) from error


def _refusal(path: str, error: Exception) -> ValueError:
    return ValueError(
        f"trainer.loggers = {path!r}: cannot be made ({first_line(error)}); expected `class:` with "
        "the path of a Lightning logger, and its arguments"
    )
