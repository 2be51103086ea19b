"""docs/scaling.md says what the module computes, and so does `--plan`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vision.errors import ConfigError
from vision.training.plan.command import plan
from vision.training.plan.document import CELLS, RECIPES, recipe_rows
from vision.training.plan.tables import hardware_table

ROOT = Path(__file__).parents[3]
KINDS = {cell.figure for cell in CELLS}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    """All rows of the tables in the document."""
    text = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    return [cells(line) for line in text.splitlines() if line.startswith("|")]


def test_every_shipped_recipe_is_planned() -> None:
    shipped = {path.stem for path in (ROOT / "configs" / "recipes").glob("imagenet_*.yaml")}
    assert shipped == set(RECIPES)


@pytest.mark.parametrize("recipe", ["imagenet_mae_b", "imagenet_dit"])
def test_the_document_holds_what_is_computed(recipe: str, rows: list[list[str]]) -> None:
    for row in recipe_rows(recipe):
        assert row in rows


def test_plan_prints_without_data_what_the_document_says(
    tool: Callable, rows: list[list[str]]
) -> None:
    files = ("configs/vit_b_seednorm.yaml", "configs/recipes/imagenet_vit_b.yaml")
    out = tool("train", *files, "--plan").stdout
    assert "1,281,167 images, 312 steps of 4,096 x 300 epochs = 93,600 steps" in out
    printed = [cells(line) for line in out.splitlines() if line.startswith("|")]
    own = [row[1:] for row in rows if row[0] == "vit_b" and row[1] in ("8", "64")]
    assert len(own) == 2
    for row in own:
        assert row in printed
    start = next(i for i, row in enumerate(rows) if row[:2] == ["vit_b", "as the config says"])
    for row in rows[start : start + 5]:
        assert row[1:] in printed
    hours = next(row[-1] for row in own if row[0] == "8")
    figure = next(row[2] for row in rows if row[1] == "ViT-B/16")
    assert f"seednorm {float(hours):,.0f}" in figure


def test_settings_save_what_they_should(rows: list[list[str]]) -> None:
    start = next(i for i, row in enumerate(rows) if row[:2] == ["vit_b", "as the config says"])
    found = {row[1]: (float(row[2]), float(row[4])) for row in rows[start : start + 6]}
    memory, time = found.pop("as the config says")
    assert found["without bf16"][0] > memory
    assert found["without bf16"][1] > 1.3 * time
    assert found["with compile"][1] < time
    assert found["with FSDP"][0] < memory
    assert found["with checkpointing"][0] < memory
    assert 1.2 * time < found["with checkpointing"][1] < 1.4 * time
    assert found["SeeDNorm by its plain formula"][1] > time


def test_the_document_holds_the_hardware_and_the_sum_of_all_figures(rows: list[list[str]]) -> None:
    for line in hardware_table().splitlines()[2:]:
        assert cells(line) in rows
    hours = [int(row[3].replace(",", "")) for row in rows if len(row) == 4 and row[0] in KINDS]
    assert len(hours) == len(CELLS)
    assert ["all", "", "", f"{sum(hours):,}"] in rows


def test_plan_of_unknown_data_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"data\.name = 'wds'.*--images NUMBER"):
        plan([str(ROOT / "configs/vit_ti.yaml"), "data.name=wds"])
