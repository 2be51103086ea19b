"""A logger, for a config to name, that sends its process a signal when a step is logged."""

import os
import signal
import time
from typing import Any

from pytorch_lightning.loggers import Logger


class SignalAt(Logger):
    """Sends `kind` to the process of rank `rank` between two steps, when it has made `step`."""

    def __init__(self, kind: str, step: int, rank: int) -> None:
        super().__init__()
        self.kind = signal.Signals[kind]
        self.step = step
        place = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
        self.mine = int(place) == rank

    @property
    def name(self) -> str:
        return "signals"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *arguments: Any, **options: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self.mine and step is not None and step + 1 >= self.step:
            self.mine = False
            print(f"sends {self.kind.name} at {time.time():.2f}", flush=True)
            os.kill(os.getpid(), self.kind)
