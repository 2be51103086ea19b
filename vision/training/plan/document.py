"""The tables of docs/scaling.md.

`python -m vision.training.plan.document docs/scaling.md` writes them anew.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the words around it are kept.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vision.config import load_config
from vision.files import written
from vision.training.plan.estimate import Planner
from vision.training.plan.tables import (
    SAVING_COLUMNS,
    SIZE_COLUMNS,
    TIME_COLUMNS,
    hardware_table,
    saving_rows,
    size_and_time,
    table,
)

_CONFIGS = Path(__file__).parents[3] / "configs"
RECIPES = {  # of configs/recipes: the configs that it is laid over
    "imagenet_vit_b": (),
    "imagenet_vit_l": (),
    "imagenet_mae_b": (),
    "imagenet_mae_l": (),
    "imagenet_mae_finetune_b": (),
    "imagenet_mae_finetune_l": (),
    "imagenet_mae_linprobe_b": (),
    "imagenet_dit": ("dit_xl2",),
}
_GPUS = (8, 64)


@dataclass(frozen=True)
class Cell:
    """One training behind a published table: a recipe, changed, and the norms it is told for."""

    figure: str
    training: str
    recipe: str
    norms: tuple[str, ...]
    overrides: tuple[str, ...] = ()


_VIT, _DIT, _MAE = "ImageNet top-1", "DiT FID", "MAE, ImageNet top-1"
_HUGE = ("model.name=vit_huge_patch14_224",)
CELLS = (
    Cell(_VIT, "ViT-B/16", "imagenet_vit_b", ("layernorm", "dyt", "derf", "seednorm")),
    Cell(_VIT, "ViT-L/16", "imagenet_vit_l", ("layernorm", "dyt", "derf")),
    Cell(_DIT, "DiT-L/4", "imagenet_dit", ("layernorm", "dyt", "derf"), ("model.name=dit_l_4",)),
    Cell(_DIT, "DiT-XL/2, 400K steps", "imagenet_dit", ("layernorm", "dyt", "derf")),
    Cell(_DIT, "DiT-B/4, 400K steps", "imagenet_dit", ("layernorm",), ("model.name=dit_b_4",)),
    Cell(_MAE, "ViT-B, 1600 epochs", "imagenet_mae_b", ("layernorm",)),
    Cell(_MAE, "ViT-L, 1600 epochs", "imagenet_mae_l", ("layernorm",)),
    Cell(_MAE, "ViT-H/14, 1600 epochs", "imagenet_mae_l", ("layernorm",), _HUGE),
    Cell(
        _MAE,
        "ViT-B, 800 epochs",
        "imagenet_mae_b",
        ("layernorm", "dyt", "seednorm"),
        ("trainer.epochs=800",),
    ),
    Cell(_MAE, "ViT-B, fine-tuning", "imagenet_mae_finetune_b", ("layernorm", "dyt", "seednorm")),
    Cell(_MAE, "ViT-L, fine-tuning", "imagenet_mae_finetune_l", ("layernorm",)),
    Cell(_MAE, "ViT-H/14, fine-tuning", "imagenet_mae_finetune_l", ("layernorm",), _HUGE),
)
# the runs of 1600 and of 800 epochs with LayerNorm are each fine-tuned
_TWICE = {("ViT-B, fine-tuning", "layernorm")}


@functools.cache
def planner_of(recipe: str, overrides: tuple[str, ...] = ()) -> Planner:
    """The planner of a shipped recipe with SeeDNorm, or as `overrides` say."""
    names = (*RECIPES[recipe], f"recipes/{recipe}", "norm/seednorm")
    files = [_CONFIGS / f"{name}.yaml" for name in names]
    return Planner(load_config(files, overrides).config)


def recipe_rows(recipe: str) -> list[list[str]]:
    """A recipe on 8 and on 64 GPUs, as rows of the table `recipes`."""
    planner = planner_of(recipe)
    return [[recipe.removeprefix("imagenet_"), *size_and_time(planner.on(n))] for n in _GPUS]


def recipe_savings(recipe: str) -> list[list[str]]:
    """What each setting changes on 8 GPUs, as rows of the table `savings`."""
    found = planner_of(recipe).savings(8, kernels=recipe == "imagenet_vit_b")
    rows = saving_rows(found)
    return [
        [recipe.removeprefix("imagenet_") if i == 0 else "", *row] for i, row in enumerate(rows)
    ]


def cell_row(cell: Cell) -> list[str]:
    """A row of the table `figures`: one seed per norm, on 8 GPUs."""
    hours = []
    for norm in cell.norms:
        names = (f"norm.name={norm}", *cell.overrides)
        runs = 2 if (cell.training, norm) in _TWICE else 1
        hours.append(runs * planner_of(cell.recipe, names).on(8).gpu_hours)
    each = ", ".join(f"{n} {h:,.0f}" for n, h in zip(cell.norms, hours, strict=True))
    return [cell.figure, cell.training, each, f"{sum(hours):,.0f}"]


def _recipes() -> str:
    rows = [row for recipe in RECIPES for row in recipe_rows(recipe)]
    return table(("recipe", *SIZE_COLUMNS, *TIME_COLUMNS), rows)


def _savings() -> str:
    rows = [row for recipe in RECIPES for row in recipe_savings(recipe)]
    return table(("recipe", *SAVING_COLUMNS), rows)


def _figures() -> str:
    rows = [cell_row(cell) for cell in CELLS]
    total = sum(int(row[-1].replace(",", "")) for row in rows)  # as shown
    rows.append(["all", "", "", f"{total:,}"])
    return table(("figure", "training", "GPU hours of each norm", "GPU hours"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "hardware": hardware_table,
    "recipes": _recipes,
    "savings": _savings,
    "figures": _figures,
}


def write(path: Path, names: tuple[str, ...] = tuple(TABLES)) -> None:
    """Put the tables `names` into the document. Raises ValueError where one has no place."""
    for name in names:
        made = TABLES[name]()
        parts = re.split(
            rf"(<!-- table: {name} -->\n).*?(\n<!-- end -->)", path.read_text("utf-8"), flags=re.S
        )
        if len(parts) != 4:
            raise ValueError(f"{path}: expected one place for the table {name}")
        before, start, end, after = parts
        with written(path) as temporary:
            temporary.write_text(before + start + made + end + after, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), tuple(sys.argv[2:]) or tuple(TABLES))
