"""The Python on the pages, run one snippet after the other as a reader would."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
END = "end of snippet\n"
WITH_PYTHON = ["README.md", "data/README.md", "docs/library.md", "docs/mae.md"]


def test_these_are_the_pages_with_python(pages: dict[str, str], blocks) -> None:
    found = [name for name, text in pages.items() if blocks(text, "python")]
    assert set(found) == set(WITH_PYTHON)


@pytest.fixture
def run_page(forked, pages: dict[str, str], blocks) -> Callable[[str, Path], None]:
    """Run a page's snippets in a folder, and compare what they print with what the page says."""

    def run(page: str, folder: Path) -> None:
        snippets = [
            (code.replace("pretrained=True", "pretrained=False"), output)  # there is no network
            for code, output in blocks(pages[page], "python")
            if not re.match(r"# \w+\.py\n", code)
        ]
        lines = [f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"]
        lines += [f"{code}\nprint({END!r}, end='')\n" for code, _ in snippets]
        script = folder / "snippets.py"
        script.write_text("".join(lines))
        printed = forked(script, folder=folder).stdout.split(END)[:-1]
        for (_, output), text in zip(snippets, printed, strict=True):
            assert text == output or not output

    return run


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({*WITH_PYTHON} - {"docs/library.md"}))
def test_the_snippets_run(page: str, run_page, home: Path) -> None:
    run_page(page, home)


@pytest.mark.slow
def test_the_snippets_print_what_stands_below_them(run_page, home_with_runs: Path) -> None:
    run_page("docs/library.md", home_with_runs)


@pytest.mark.slow
def test_a_norm_of_the_library_page_trains(
    forked, small, pages: dict[str, str], blocks, home: Path, tmp_path: Path
) -> None:
    text = pages["docs/library.md"]
    assert re.findall(r"(?m)^# (\w+\.py)\n", text) == ["my_norms.py"]
    assert len(blocks(text, "python")) >= 6
    shutil.copy(home / "my_norms.py", tmp_path)
    ((command, _),) = blocks(text, "sh")
    tool, config, *options = command.removeprefix("python ").split()
    options = [option.replace("my_norms.py", str(tmp_path / "my_norms.py")) for option in options]
    more = [*small, "trainer.epochs=1", f"output_dir={tmp_path}", "name=own"]
    told = forked(tool, config, *options, *more).stdout
    assert "norm    scale: 5 norms -> Scale: 5 LayerNorm" in told
