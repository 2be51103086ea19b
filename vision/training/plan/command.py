"""What `tools/train.py --plan` does. Imports torch only once the config is known to be sound."""

from __future__ import annotations

from collections.abc import Sequence

from vision.config import load_config
from vision.config.load import split_arguments
from vision.training.check import check_settings

USUAL = (1, 8, 64)  # GPUs


def plan(arguments: Sequence[str], images: int | None = None) -> str:
    """The plan of `CONFIG.yaml [OVERLAY.yaml ...] [key=value ...]` as text.

    Of the data only names are looked at; `images` is the size of the training split where the data
    set is not a known one. Raises ConfigError.
    """
    loaded = load_config(*split_arguments(arguments))
    trainer = loaded.config.trainer
    given = trainer.devices * trainer.num_nodes
    try:
        check_settings(loaded.config)
        from vision.training.plan.estimate import Planner
        from vision.training.plan.tables import plan_text

        planner = Planner(loaded.config, images)
        return plan_text(planner, sorted({*USUAL, given}), given if given > 1 else 8)
    except (ValueError, FileNotFoundError) as error:
        raise loaded.locate(error) from None
