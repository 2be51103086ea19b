"""GPU hours of a comparison, computed without data or GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vision.compare.grid import Cell
from vision.errors import ConfigError
from vision.training.build import check_build
from vision.training.check import load_checked
from vision.training.plan.hardware import value
from vision.training.plan.planner import Planner, TrainingPlan
from vision.training.plan.tables import table

_COLUMNS = "task, variant|runs|GPUs|GB per GPU|hours each|GPU hours each|GPU hours".split("|")


def plan_comparison(cells: Mapping[str, Sequence[Cell]]) -> str:
    """A row per task and variant, as `tools/train.py --plan` computes it for the first of its runs.

    Each on the GPUs of its config, or on 8 where that has one. Raises ConfigError, naming the cell.
    """
    rows, total = [], 0.0
    for stage, column in cells.items():
        for variant in dict.fromkeys(cell.variant for cell in column):
            members = [cell for cell in column if cell.variant == variant]
            plan = _plan(members[0])
            hours = plan.gpu_hours * len(members)
            total += hours
            devices = plan.layout.devices
            rows.append(
                [
                    f"{stage}, {variant}", str(len(members)), str(devices),
                    f"{plan.memory / 1e9:.1f}{' (too much)' * (plan.memory > value('memory'))}",
                    f"{plan.gpu_hours / devices:,.1f}", f"{plan.gpu_hours:,.0f}", f"{hours:,.0f}",
                ]
            )  # fmt: skip
    return "\n".join(
        [
            "plan    on H100 SXM GPUs: computed, not measured; docs/scaling.md says how",
            "",
            table(_COLUMNS, rows),
            "",
            f"in all {total:,.0f} GPU hours, without evaluation, failed runs and waiting",
        ]
    )


def _plan(cell: Cell) -> TrainingPlan:
    try:
        config = load_checked(cell.from_scratch(), data=False).config
        check_build(config)
        planner = Planner(config)
        own = config.trainer.devices * config.trainer.num_nodes
        return planner.plan(planner.layout(own if own > 1 else 8))
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"{cell}: {error}") from None
