"""`vision.commands.arguments`: what --help shows."""

import importlib
import pkgutil

import pytest

import vision.commands
from vision.commands.arguments import tool_parser

TOOLS = [name for _, name, _ in pkgutil.iter_modules(vision.commands.__path__)]


@pytest.mark.parametrize("name", sorted(set(TOOLS) - {"arguments"}))
@pytest.mark.parametrize("columns", [60, 80, 1])
def test_prose_fits_in_the_terminal_and_commands_stay_as_they_are(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    document = importlib.import_module(f"vision.commands.{name}").__doc__
    shown = tool_parser(document).description
    assert shown is not None and shown.split() == document.split()
    as_written = {line for line in document.split("\n") if line.startswith(" ")}
    for line in shown.split("\n"):
        if line.startswith(" "):
            assert line in as_written
        else:
            assert len(line) <= max(20, columns - 2) or " " not in line
    assert all(line in shown.split("\n") for line in as_written)
