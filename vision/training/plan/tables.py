"""Training plans as text: `tools/train.py --plan`, and the tables of docs/scaling.md.

`python -m vision.training.plan.tables docs/scaling.md` writes those anew.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from vision.config import LoadedConfig, load_config
from vision.training.plan.hardware import CONSTANTS, value
from vision.training.plan.planner import IMAGENET, Planner, TrainingPlan

PLAN_COLUMNS = (
    *("GPUs", "images x accumulated", "weights", "gradients", "optimizer state", "EMA"),
    *("activations", "GB per GPU", "compute ms", "optimizer ms", "communication ms"),
    *("step ms", "MFU %", "GPU hours"),
)
VARIANT_COLUMNS = ("GB per GPU", "difference", "step ms", "difference", "GPU hours")

_CONFIGS = Path(__file__).parents[3] / "configs"
RECIPES = sorted(path.stem for path in (_CONFIGS / "recipes").glob("imagenet_*.yaml"))


def plan_run(loaded: LoadedConfig, images: int | None = None) -> str:
    """The plan of a configuration as text.

    Of the data only its name matters; `images` is the size of the training split where that is
    not known. Raises ConfigError.
    """
    trainer = loaded.config.trainer
    own = trainer.devices * trainer.num_nodes
    with loaded.located():
        planner = Planner(loaded.config, images)
        return plan_text(planner, sorted({1, 8, 64, own}), own if own > 1 else 8)


def plan_text(planner: Planner, devices: Iterable[int], shown: int) -> str:
    """A row per number of devices, and variants on `shown` of them.

    Raises ValueError if the batch does not divide over `shown` GPUs.
    """
    config, layout, per_epoch = planner.config, planner.layout(shown), planner.steps_per_epoch
    cost = planner.count(layout.precision, layout.images)
    forward, backward = (f / 1e9 / layout.images for f in (cost.forward_flops, cost.backward_flops))
    total, (steps, epochs) = config.trainer.batch_size_total, planner.length
    like = " (taken for ImageNet-1k)" if planner.images == IMAGENET[0] else ""
    about = " =" if steps == per_epoch * epochs else ", the last one cut short ="
    rows, refused = [], []
    for count in devices:
        try:
            rows.append(plan_row(planner.plan(planner.layout(count))))
        except ValueError as error:
            refused.append(f"{count} GPUs: {error}")
    lines = [
        "plan    on H100 SXM GPUs: computed, not measured; docs/scaling.md says how",
        f"assumed {value('flops_reached'):.0%} of peak FLOP/s in matrix products, "
        f"{value('traffic_autocast'):g} bytes of memory traffic per byte kept for the backward "
        f"({value('traffic'):g} without autocast)",
        f"data    {config.data.name}{like}: {planner.images:,} images, {per_epoch:,} steps of "
        f"{total:,} x {epochs} epochs{about} {steps:,} steps",
        f"model   {config.model.name}, {cost.parameters:,} parameters, {cost.trainable:,} of them "
        f"trained; norm {config.norm.name}",
        f"work    {forward:.2f} GFLOP forward and {backward:.2f} backward per image, "
        f"{(forward + backward) * total / 1e3:,.1f} TFLOP per step",
        f"setup   {layout.precision}, {'FSDP' if layout.sharded else 'DDP'}"
        f"{', compile' * layout.compiled}{', checkpointing' * layout.checkpointing}; GB per GPU "
        f"include {value('reserve') / 1e9:g} of reserve, of {value('memory') / 1e9:g}",
        "",
        table(PLAN_COLUMNS, rows),
        *refused,
        "",
        table((f"on {shown} GPUs", *VARIANT_COLUMNS), variant_rows(planner.variants(shown))),
    ]
    return "\n".join(lines)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width; all but the first aligned to the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = []
    for first, *others in (columns, rules, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append(f"| {' | '.join([first.ljust(widths[0]), *cells])} |")
    return "\n".join(lines)


def plan_row(plan: TrainingPlan) -> list[str]:
    """One row of PLAN_COLUMNS."""
    sizes = (plan.weights, plan.gradients, plan.optimizer_state, plan.ema, plan.activations)
    times = (plan.compute, plan.optimizer, plan.communication, plan.seconds)
    return [
        str(plan.layout.devices),
        f"{plan.layout.images} x {plan.layout.accumulate}",
        *(f"{size / 1e9:.2f}" for size in sizes),
        f"{plan.memory / 1e9:.1f}{' (too much)' * (plan.memory > value('memory'))}",
        *(f"{1e3 * seconds:.1f}" for seconds in times),
        f"{100 * plan.flops / plan.seconds / value('bf16'):.0f}",  # model FLOPs utilization
        f"{plan.gpu_hours:,.1f}",
    ]


def variant_rows(plans: dict[str, TrainingPlan]) -> list[list[str]]:
    """Rows of a name and VARIANT_COLUMNS; differences are to the first plan."""
    base, *_ = plans.values()
    return [
        [
            name,
            f"{plan.memory / 1e9:.1f}",
            "" if plan is base else f"{(plan.memory - base.memory) / 1e9:+.1f}",
            f"{1e3 * plan.seconds:.1f}",
            "" if plan is base else f"{round(100 * (plan.seconds / base.seconds - 1)):+d} %",
            f"{plan.gpu_hours:,.1f}",
        ]
        for name, plan in plans.items()
    ]


@functools.cache
def recipe_planner(recipe: str, *overrides: str, norm: str = "seednorm") -> Planner:
    """The planner of a shipped recipe with a norm."""
    before = ["dit_xl2"] if recipe == "imagenet_dit" else []  # has no model of its own
    named = f"norm/{norm}"  # an overlay where there is one, its name otherwise
    after = [named] if (_CONFIGS / f"{named}.yaml").is_file() else []
    files = [_CONFIGS / f"{n}.yaml" for n in (*before, f"recipes/{recipe}", *after)]
    return Planner(load_config(files, [f"norm.name={norm}", *overrides]).config)


def recipe_rows(recipe: str) -> list[list[str]]:
    """A recipe on 8 and on 64 GPUs."""
    planner = recipe_planner(recipe)
    return [[recipe, *plan_row(planner.plan(planner.layout(n)))] for n in (8, 64)]


def recipe_variants(recipe: str) -> list[list[str]]:
    """What each setting changes on 8 GPUs."""
    plans = recipe_planner(recipe).variants(8)
    if recipe == "imagenet_vit_b":
        plain = recipe_planner(recipe, "norm.options.backend=eager")
        plans["SeeDNorm by its plain formula"] = plain.plan(plain.layout(8))
    return [[recipe, *row] for row in variant_rows(plans)]


def published_row(row: Sequence[str]) -> list[str]:
    """Metric, training, recipe with overrides and norms, as they are, and GPU hours on 8 GPUs."""
    planners = [recipe_planner(*row[2].split(), norm=norm) for norm in row[3].split(", ")]
    hours = [round(planner.plan(planner.layout(8)).gpu_hours) for planner in planners]
    return [*row[:4], ", ".join(map(str, hours)), str(sum(hours))]


def hardware_rows() -> list[list[str]]:
    """The numbers that everything is computed from."""
    return [[meaning, f"{n:g}", unit, source] for n, unit, source, meaning in CONSTANTS.values()]


def renew(name: str, old: str) -> str:
    """A table of docs/scaling.md, computed; of `published` the first four columns are `old`'s."""
    if name == "hardware":
        return table(("number", "value", "unit", "source"), hardware_rows())
    if name == "recipes":
        rows = [row for recipe in RECIPES for row in recipe_rows(recipe)]
        return table(("recipe", *PLAN_COLUMNS), rows)
    if name == "settings":
        rows = [row for recipe in RECIPES for row in recipe_variants(recipe)]
        return table(("recipe", "setting", *VARIANT_COLUMNS), rows)
    columns, _, *lines = (
        [c.strip() for c in line.strip("|").split("|")] for line in old.split("\n")
    )
    rows = [published_row(line) for line in lines[:-1]]
    return table(columns, [*rows, ["all", *[""] * 4, str(sum(int(row[-1]) for row in rows))]])


if __name__ == "__main__":
    path = Path(sys.argv[1])
    pattern = r"(?s)(?<=<!-- table: )(\w+)( -->\n)(.*?)(?=<!-- end -->)"
    text = path.read_text("utf-8")
    text = re.sub(pattern, lambda m: m[1] + m[2] + renew(m[1], m[3].strip()) + "\n", text)
    path.write_text(text, encoding="utf-8")
