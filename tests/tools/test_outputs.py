"""Where a tool writes is looked at before it computes."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "RUN", "--output", "FILE/in"],
        ["evaluate", "RUN", "--export", "FILE/in"],
        ["fid", "--real", "no", "--fake", "no", "--json", "FILE/a.json"],
        ["fid", "--real", "no", "--fake", "no", "--save-stats", "FOLDER"],
        ["anatomy", "layernorm", "--output", "FILE/a.png"],
        ["preview", f"{ROOT}/configs/vit_ti.yaml", "--output", "FILE/a.png"],
        ["benchmark", "norms", "--json", "FOLDER"],
    ],
    ids=lambda arguments: f"{arguments[0]} {arguments[-2]}",
)
def test_a_place_that_cannot_be_written_is_refused_first(
    arguments: list[str], forked, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept")
    places = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path), "RUN": str(trained)}
    for name, place in places.items():
        arguments = [text.replace(name, place) for text in arguments]
    before = sorted(tmp_path.rglob("*"))
    said = forked(f"tools/{arguments[0]}.py", *arguments[1:], code=2)
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}")
    assert line.endswith("expected a place that can be read and written")
    assert said.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before
