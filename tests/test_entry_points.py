"""The commands that an installation puts on the path are those of tools/."""

import importlib.metadata
import os
import re
import runpy
from pathlib import Path

import pytest
from setuptools import build_meta
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, importlib.metadata.EntryPoint]:
    """The console scripts in the metadata that pip would install, built without a network."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("metadata")
    for name in ("pyproject.toml", "README.md", "LICENSE", "vision"):
        (source / name).symlink_to(ROOT / name)
    before = Path.cwd()
    os.chdir(source)
    try:
        built = build_meta.prepare_metadata_for_build_wheel(str(target))
    finally:
        os.chdir(before)
    installed = importlib.metadata.Distribution.at(target / built)
    return {e.name: e for e in installed.entry_points.select(group="console_scripts")}


def test_every_tool_is_a_command_and_the_same_function(commands) -> None:
    tools = {f"vision-{t.stem.replace('_', '-')}": t for t in (ROOT / "tools").glob("*.py")}
    assert commands.keys() == tools.keys()
    for name, tool in tools.items():
        assert commands[name].load() is runpy.run_path(str(tool))["run"]


def test_a_command_parses_and_ends_with_its_code(
    commands, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["vision-train", "no.yaml"])
    with pytest.raises(SystemExit) as end:
        commands["vision-train"].load()()
    assert end.value.code == 2
    assert "no.yaml" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["vision-evaluate", "--help"])
    with pytest.raises(SystemExit) as end:
        commands["vision-evaluate"].load()()
    assert not end.value.code
    assert "usage: vision-evaluate" in capsys.readouterr().out


@pytest.mark.parametrize("tool", ["sample", "fid", "train"])
def test_torchrun_takes_no_option_of_ours_for_its_own(tool: str, forked) -> None:
    own = {text for action in get_args_parser()._actions for text in action.option_strings}
    assert "--nnodes" in own
    usage = forked(f"tools/{tool}.py", "--help").stdout
    options = set(re.findall(r"^ +(--[a-z][a-z0-9-]*)", usage, re.M))
    assert len(options) > 3
    assert not {option for option in options for text in own if text.startswith(option)}
