"""docs/norms.md says of every norm what its class says."""

import re
from typing import NamedTuple

import pytest

from vision.norms import Norm, create_norm, list_norms

WIDTHS = (192, 384)


class Row(NamedTuple):
    name: str
    file: str
    kind: str
    state: set[str]
    parameters: str
    needs: set[str]


@pytest.fixture(scope="module")
def rows(texts: dict[str, str]) -> list[Row]:
    table = texts["docs/norms.md"].partition("\n## All norms\n")[2].partition("\n## ")[0]
    found = []
    for line in re.findall(r"(?m)^\| \[`.*", table):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert len(cells) == 9, line
        link, _, _, kind, state, parameters, needs, _, _ = cells
        match = re.fullmatch(r"\[`(\w+)`\]\(\.\./(.+)\)", link)
        assert match, link
        stated = {word for word in needs.split(", ") if word != "-"}
        buffers = set(re.findall(r"`(\w+)`", state))
        found.append(Row(match[1], match[2], kind, buffers, parameters, stated))
    return found


def make(name: str, width: int = WIDTHS[0]) -> Norm:
    norm = create_norm(name, width)
    assert isinstance(norm, Norm)
    return norm


def test_every_norm_has_one_row_and_its_file(rows: list[Row]) -> None:
    assert sorted(row.name for row in rows) == list_norms()
    for row in rows:
        assert row.file == f"vision/norms/{row.name}.py"
        assert type(make(row.name)).__module__ == f"vision.norms.{row.name}"
        assert row.kind in ("static", "dynamic")


def test_the_parameters_are_as_many_as_stated(rows: list[Row]) -> None:
    for row in rows:
        assert re.fullmatch(r"[\dD+²/ ]+", row.parameters), row
        formula = re.sub(r"(?<=\d)D", "*D", row.parameters).replace("²", "**2").replace("/", "//")
        for width in WIDTHS:
            counted = sum(p.numel() for p in make(row.name, width).parameters())
            assert eval(formula, {"D": width}) == counted, row


def test_state_and_needs_are_those_of_the_class(rows: list[Row]) -> None:
    for row in rows:
        norm = make(row.name)
        assert row.state == {name for name, _ in norm.named_buffers()}, row
        declared = {
            "batch": norm.running,
            "tokens": norm.mixes_tokens,
            "grid": norm.needs_grid,
            "activation": norm.contains_activation,
        }
        assert row.needs == {word for word, needed in declared.items() if needed}, row
