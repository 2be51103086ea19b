"""The Python snippets of README's "As a library", run one after the other as a reader would."""

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
END = "end of snippet\n"


def section(title: str) -> str:
    """The part of README.md under a heading, up to the next of its level."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.split(r"(?m)^## ", text.partition(f"\n## {title}\n")[2])[0]


def blocks(text: str, language: str) -> list[tuple[str, str]]:
    """Code blocks in order, each with the ```text block right below it, or ""."""
    pattern = rf"(?ms)^```{language}\n(.*?)^```\n(?:\n*^```text\n(.*?)^```\n)?"
    return [(code, output or "") for code, output in re.findall(pattern, text)]


@pytest.mark.slow
def test_the_snippets_print_what_stands_below_them(
    forked, small, trained: Path, trained_dit: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "runs" / "vit_ti_seednorm")
    shutil.copytree(trained_dit, tmp_path / "runs" / "dit_b4_seednorm")
    text = section("As a library")
    files = re.findall(r"(?m)^# (\w+\.py)\n", text)
    snippets = []
    for code, output in blocks(text, "python"):
        named = re.match(r"# (\w+\.py)\n", code)
        if named:  # a file that the next snippets use
            (tmp_path / named[1]).write_text(code)
        else:
            snippets.append((code, output))
    assert files == ["my_norms.py"] and len(snippets) >= 5
    lines = [f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"]
    lines += [f"{code}\nprint({END!r}, end='')\n" for code, _ in snippets]
    script = tmp_path / "snippets.py"
    script.write_text("".join(lines))
    printed = forked(script, folder=tmp_path).stdout
    assert printed == "".join(output + END for _, output in snippets)

    ((command, _),) = blocks(text, "sh")
    tool, config, *options = command.removeprefix("python ").split()
    options = [option.replace("my_norms.py", str(tmp_path / "my_norms.py")) for option in options]
    more = [*small, "trainer.epochs=1", f"output_dir={tmp_path}", "name=own"]
    told = forked(tool, config, *options, *more).stdout
    assert "norm    scale: 5 norms -> Scale: 5 LayerNorm" in told
