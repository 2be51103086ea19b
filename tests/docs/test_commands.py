"""Every command of the pages is taken by the tool that it names."""

import ast
import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[2]
OTHERS = {"[", "pip", "python3", "scontrol", "source", "tar"}  # not ours


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command in a shell block."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


def tool_call(words: list[str]) -> list[str]:
    """`tools/NAME.py ARGUMENTS` of a command, however it is started; empty where it is not ours."""
    while words and re.match(r"[A-Z_]+=|exec$", words[0]):
        words = words[1:]
    if words[0] == "srun":
        words = [word for i, word in enumerate(words[1:]) if i or not word.startswith("-")]
    if words[0] == "torchrun":
        launch = get_args_parser().parse_args(words[1:])
        return [launch.training_script, *launch.training_script_args]
    if words[0] == "python" and words[1] == "-c":
        ast.parse(words[2])
        return []
    if words[0] == "python":
        return words[1:]
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        targets = [word for word in words[1:] if "=" not in word]
        assert all(re.search(rf"(?m)^{target}:", makefile) for target in targets), words
        return []
    assert words[0] in OTHERS, f"a test of {words[0]} is missing: {words}"
    return []


@pytest.fixture(scope="module")
def calls(pages: dict[str, str], blocks, home: Path) -> list[list[str]]:
    """All calls of our tools in shell blocks, with paths that exist here."""
    found = []
    for text in pages.values():
        for code, _ in blocks(text, "sh|bash"):
            subprocess.run(["bash", "-nc", code], check=True)
            found += [call for words in commands(code) if (call := tool_call(words))]
    assert len(found) > 40
    return [[word.replace("/datasets", f"{home}/datasets") for word in call] for call in found]


@pytest.fixture(scope="module")
def examples() -> list[list[str]]:
    """The calls that the tools' --help shows."""
    found = []
    for file in (ROOT / "vision/commands").glob("*.py"):
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        pattern = r"(?m)^ +((?:OMP_NUM_THREADS|python|torchrun)\b(?:[^\\\n]|\\\n)*)"
        found += [
            tool_call(words) for code in re.findall(pattern, text) for words in commands(code)
        ]
    assert len(found) > 20
    return found


@pytest.fixture(scope="module")
def answers(forked, home: Path, tmp_path_factory) -> Callable[..., list[tuple[int, str]]]:
    """Exit code and output of calls, all in one process; see tests/docs/calls.py for the modes."""

    def run(mode: str, calls: list[list[str]]) -> list[tuple[int, str]]:
        file = tmp_path_factory.mktemp("calls") / "calls.json"
        file.write_text(json.dumps(calls), encoding="utf-8")
        return json.loads(forked("tests/docs/calls.py", mode, file, folder=home).stdout)

    return run


@pytest.mark.slow
def test_every_tool_takes_its_arguments(
    calls: list[list[str]], examples: list[list[str]], answers
) -> None:
    both = calls + examples
    for call, (code, output) in zip(both, answers("parse", both), strict=True):
        assert code == 0, f"{call}: {output}"
        missing = [w for w in call if w.startswith("configs/") and not (ROOT / w).is_file()]
        assert not missing, call


@pytest.mark.slow
def test_every_configuration_passes_its_checks_and_every_named_run_has_one(
    calls: list[list[str]], pages: dict[str, str], answers, home: Path
) -> None:
    trainings, runs = [], {"runs/NAME"}
    for tool, *arguments in calls:
        if tool == "tools/compare.py":
            runs.add(f"runs/{Path(arguments[0]).stem}")
        if tool == "tools/train.py":
            if "--plan" in arguments:  # it looks at no data
                arguments.append(f"data.root={home}/datasets/imagenet")
            trainings.append([tool, *arguments])
    for call, (code, output) in zip(trainings, answers("check", trainings), strict=True):
        assert code == 0, f"{call}: {output}"
        runs.add(output)
    named = {run for text in pages.values() for run in re.findall(r"\bruns/\w+", text)}
    assert named <= runs


@pytest.mark.slow
def test_the_sessions_on_the_pages_print_what_they_show(
    pages: dict[str, str], blocks, answers
) -> None:
    sessions = [code for text in pages.values() for code, _ in blocks(text, "console")]
    assert len(sessions) >= 4
    shown = [code.removeprefix("$ python ").partition("\n") for code in sessions]
    outputs = answers("run", [shlex.split(command) for command, _, _ in shown])
    assert outputs == [[2, output] for _, _, output in shown]
