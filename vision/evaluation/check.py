"""What can be known to be wrong with `evaluation:` before torch is imported."""

from __future__ import annotations

from vision.config import Config


def check_evaluation(config: Config) -> None:
    """Raise ValueError for an extractor where the task has no use for one."""
    if config.evaluation.extractor is not None and config.task != "dit":
        raise ValueError(
            f"evaluation.extractor = {config.evaluation.extractor!r}: task {config.task} "
            "generates no images; set it to null"
        )
