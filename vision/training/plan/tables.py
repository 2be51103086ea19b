"""Estimates as Markdown tables, which a terminal shows as well."""

from __future__ import annotations

from collections.abc import Sequence

from vision.training.plan.estimate import Estimate, Planner
from vision.training.plan.hardware import FIGURES, value

SIZE_COLUMNS = (
    *("GPUs", "images x accumulated", "weights", "gradients", "moments", "EMA"),
    *("activations", "GB per GPU"),
)
TIME_COLUMNS = ("kernels ms", "optimizer ms", "links ms", "step ms", "MFU %", "GPU hours")
SAVING_COLUMNS = ("setting", "GB per GPU", "difference", "step ms", "difference", "GPU hours")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width; all but the first column to the right."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    lines = [_line(columns, widths)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines.append(f"| {' | '.join(rules)} |")
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def size_and_time(estimate: Estimate) -> list[str]:
    """One row of SIZE_COLUMNS and TIME_COLUMNS."""
    m, s, setup = estimate.memory, estimate.step, estimate.setup
    sizes = (m.weights + m.gathered, m.gradients, m.moments, m.ema, m.activations)
    return [
        str(setup.devices),
        f"{setup.images} x {setup.accumulate}",
        *(f"{size / 1e9:.2f}" for size in sizes),
        f"{m.total / 1e9:.1f}{'' if m.fits else ' (too much)'}",
        *(f"{1e3 * t:.1f}" for t in (s.compute, s.optimizer, s.exposed, s.seconds)),
        f"{100 * s.utilization:.0f}",
        f"{estimate.gpu_hours:,.1f}",
    ]


def saving_rows(found: dict[str, Estimate]) -> list[list[str]]:
    """Rows of SAVING_COLUMNS; the first estimate is what the others differ from."""
    base = next(iter(found.values()))
    rows = []
    for name, estimate in found.items():
        size, time = estimate.memory.total, estimate.step.seconds
        first = estimate is base
        rows.append(
            [
                name,
                f"{size / 1e9:.1f}",
                "" if first else _signed((size - base.memory.total) / 1e9, 1),
                f"{1e3 * time:.1f}",
                "" if first else f"{_signed(100 * (time / base.step.seconds - 1), 0)} %",
                f"{estimate.gpu_hours:,.1f}",
            ]
        )
    return rows


def hardware_table() -> str:
    """The numbers that everything is computed from."""
    rows = [[f.meaning, f"{f.value:g}", f.unit, f.source] for f in FIGURES.values()]
    return table(("number", "value", "unit", "source"), rows)


def plan_text(planner: Planner, devices: Sequence[int], shown: int) -> str:
    """All that `--plan` prints: a row per number of GPUs, and savings on `shown` of them.

    Raises ValueError if the batch does not divide over `shown` GPUs.
    """
    config, data = planner.config, planner.data
    setup = planner.on(shown).setup
    recording = planner.recording(setup.precision)
    forward, backward = (recording.flops(b) / 1e9 for b in (False, True))
    total, kind = config.trainer.batch_size_total, "FSDP" if setup.sharded else "DDP"
    rows, refused = [], []
    for count in devices:
        try:
            rows.append(size_and_time(planner.on(count)))
        except ValueError as error:
            refused.append(f"{count} GPUs: {error}")
    lines = [
        "plan    on H100 SXM GPUs: computed, not measured; docs/scaling.md says from what",
        f"data    {data.title}: {data.images:,} images, {planner.steps_per_epoch:,} steps of "
        f"{total:,} x {config.trainer.epochs} epochs = {planner.steps:,} steps",
        f"model   {config.model.name}, {recording.parameters:,} parameters, "
        f"{recording.trainable:,} of them trained; norm {config.norm.name}",
        f"work    {forward:.2f} GFLOP forward and {backward:.2f} backward per image, "
        f"{(forward + backward) * total / 1e3:,.1f} TFLOP per step",
        f"setup   {setup.precision}, {kind}{', compile' * setup.compiled}"
        f"{', checkpointing' * setup.checkpointing}; GB per GPU hold {value('reserve') / 1e9:g} "
        f"of reserve, of {value('memory') / 1e9:g}",
        "",
        table(SIZE_COLUMNS + TIME_COLUMNS, rows),
        *refused,
        "",
        table((f"on {shown} GPUs", *SAVING_COLUMNS[1:]), saving_rows(planner.savings(shown))),
    ]
    return "\n".join(lines)


def _signed(number: float, digits: int) -> str:
    return f"{round(number, digits) + 0.0:+.{digits}f}"  # + 0.0: no minus before a zero


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return f"| {' | '.join([first, *rest])} |"
