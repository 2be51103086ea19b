"""docs/scaling.md says what is computed, and so does `--plan`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vision.config import load_config
from vision.errors import ConfigError
from vision.training.plan.planner import Planner
from vision.training.plan.tables import (
    RECIPES,
    hardware_rows,
    plan_run,
    published_row,
    recipe_rows,
    recipe_variants,
)

ROOT = Path(__file__).parents[3]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    """All rows of the tables in the document."""
    text = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    return [cells(line) for line in text.splitlines() if line.startswith("|")]


def test_every_shipped_recipe_is_planned(rows: list[list[str]]) -> None:
    assert len(RECIPES) == 8
    assert {row[0] for row in rows if len(row) == 15} - {"recipe", "-" * 23} == set(RECIPES)


@pytest.mark.parametrize("recipe", ["imagenet_mae_b", "imagenet_dit"])
def test_the_document_holds_what_is_computed(recipe: str, rows: list[list[str]]) -> None:
    for row in (*recipe_rows(recipe), *recipe_variants(recipe)):
        assert row in rows


def test_plan_prints_without_data_what_the_document_says(
    forked: Callable, rows: list[list[str]]
) -> None:
    files = ("configs/recipes/imagenet_vit_b.yaml", "configs/norm/seednorm.yaml")
    out = forked("tools/train.py", *files, "--plan").stdout
    assert "computed, not measured" in out
    assert "1,281,167 images, 312 steps of 4,096 x 300 epochs = 93,600 steps" in out
    printed = [cells(line) for line in out.splitlines() if line.startswith("|")]
    own = [row[1:] for row in rows if row[0] == "imagenet_vit_b" and row[1] in ("8", "64")]
    assert len(own) == 2
    for row in own:
        assert row in printed
    variants = [row[1:] for row in rows if row[0] == "imagenet_vit_b" and len(row) == 7]
    for row in variants[:5]:
        assert row in printed
    hours = next(row[-1] for row in own if row[0] == "8")
    published = next(row for row in rows if row[1] == "ViT-B/16")
    assert f"{float(hours):.0f}" == published[4].split(", ")[3]


def test_the_recipe_with_coefficient_dropout_costs_what_is_said() -> None:
    files = [
        ROOT / f"configs/{n}.yaml" for n in ("recipes/imagenet_vit_b", "norm/seednorm_drop_path")
    ]
    planner = Planner(load_config(files).config)
    hours = round(planner.plan(planner.layout(8)).gpu_hours)
    for page in ("README.md", "docs/scaling.md"):
        assert f" {hours} GPU hours" in (ROOT / page).read_text("utf-8")


def test_settings_save_what_they_should(rows: list[list[str]]) -> None:
    own = [row for row in rows if row[0] == "imagenet_vit_b" and len(row) == 7]
    found = {row[1]: (float(row[2]), float(row[4])) for row in own}
    memory, time = found.pop("as the config says")
    assert found["without bf16"][0] > memory
    assert found["without bf16"][1] > 1.3 * time
    assert found["with compile"][1] < time
    assert found["with FSDP"][0] < memory
    assert found["with checkpointing"][0] < memory
    assert 1.2 * time < found["with checkpointing"][1] < 1.4 * time
    assert found["SeeDNorm by its plain formula"][1] > time


def test_the_document_holds_the_hardware_and_the_sum_of_all_hours(rows: list[list[str]]) -> None:
    for row in hardware_rows():
        assert row in rows
    published = [row for row in rows if len(row) == 6][2:]
    *trainings, total = published
    assert len(trainings) == 12
    assert published_row(trainings[3]) == trainings[3]
    assert total[-1] == str(sum(int(row[-1]) for row in trainings))


def test_plan_of_unknown_data_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"data\.name = 'wds'.*--images NUMBER"):
        plan_run(load_config([ROOT / "configs/vit_ti.yaml"], ["data.name=wds"]))
