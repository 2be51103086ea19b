"""What can be known to be wrong with `evaluation:` before torch is imported."""

from __future__ import annotations

import re

from vision.config import Config
from vision.registry import METRICS


def check_evaluation(config: Config) -> None:
    """Raise ValueError for an extractor or a metric that there is none of, or none for the task."""
    evaluation = config.evaluation
    name = evaluation.extractor
    if name is None:
        return
    if config.task != "dit":
        raise ValueError(
            f"evaluation.extractor = {name!r}: task {config.task} generates no images; set it to "
            "null"
        )
    if name not in ("inception", "dinov2") and not re.fullmatch(r"(timm|run):.+", name):
        raise ValueError(
            f"evaluation.extractor = {name!r}: expected inception, dinov2, timm:NAME or run:PATH"
        )
    if not evaluation.metrics or set(evaluation.metrics) - set(METRICS.names()):
        raise ValueError(
            f"evaluation.metrics = {evaluation.metrics}: expected some of "
            f"{', '.join(METRICS.names())}"
        )
