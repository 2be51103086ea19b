"""Whatever a config file holds, the loader ends in a Config or in one line, and runs nothing."""

import os
import random
from pathlib import Path

import pytest

from vision.compare.grid import load_compare
from vision.config import Config, load_config
from vision.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"
SHIPPED = sorted(CONFIGS.rglob("*.yaml"))
PIECES = (
    *(b"{", b"}", b"[", b"]", b": ", b"- ", b"\n  ", b"\n", b"'", b'"', b"&a ", b"*a", b"!!int "),
    *(b"!!binary ", b"!!set ", b"!!python/object/apply:os.system ", b"? ", b"<<: ", b"%", b"\0"),
    *(b"${", b"${oc.env:HOME}", b"${seed}", b"}", b"???", b"null", b".nan", b"-.inf", b"1e400"),
    *(b"2020-99-99", b"\xff", "\u2028\u202e".encode(), b"9" * 30, b"0x" + b"f" * 40, b"base: "),
    *(b"norm: ", b"options: ", b"model: ", b"optim: ", b"lr: ", b"trainer: ", b"loggers: ", b"~"),
)


def outcome(*arguments: object) -> Config | str:
    """The config, or the one line that says why there is none."""
    try:
        return load_config(*arguments).config
    except ConfigError as error:
        line = str(error)
        assert line.isprintable()
        assert 0 < len(line) < 1100
        return line


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    line = outcome([path])
    assert isinstance(line, str), f"{text[:80]} was taken"
    return line


def test_random_bytes_end_in_one_line_or_a_config(tmp_path: Path) -> None:
    draw, refused = random.Random(0), 0
    for i in range(200):
        parts = [draw.choice(PIECES) for _ in range(draw.randrange(1, 14))]
        content = draw.randbytes(draw.randrange(40)) if i % 4 == 0 else b"".join(parts)
        file = tmp_path / "a.yaml"
        file.write_bytes(content)
        refused += isinstance(outcome([file]), str)
    assert refused > 150


def test_damaged_shipped_configs_end_in_one_line_or_a_config(tmp_path: Path) -> None:
    draw, taken, refused = random.Random(1), 0, 0
    for _ in range(60):
        source = draw.choice(SHIPPED)
        content = bytearray(source.read_bytes())
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(content))
            cut = draw.randrange(4)
            content[at : at + cut] = draw.choice(PIECES) if draw.random() < 0.7 else b""
        file = tmp_path / "a.yaml"
        file.write_bytes(content.replace(b"base: ", f"base: {source.parent}/".encode()))
        found = outcome([file])
        taken += isinstance(found, Config)
        refused += isinstance(found, str)
    assert taken > 2
    assert refused > 10


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "name: !!python/object/apply:os.system ['touch {mark}']",
        "name: !!python/object/new:os.system ['touch {mark}']",
        "name: !!python/name:os.system",
        "norm: {{options: {{a: !!python/module:antigravity}}}}",
    ],
)
def test_python_tags_build_nothing(tmp_path: Path, text: str) -> None:
    mark = tmp_path / "mark"
    assert "not valid YAML" in refusal(tmp_path / "a.yaml", text.format(mark=mark))
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "data: {root: '${oc.env:SECRET}'}",
        "data: {root: '${oc.env:SECRET,x}/images'}",
        "data: {root: '${oc.decode:${oc.env:SECRET}}'}",
        "norm: {options: {a: ['${oc.env:SECRET}']}}",
        "norm: {options: {a: '${oc.create:{b: 1}}'}}",
        "name: '${oc.deprecated:seed}'",
        "name: '${${task}.x:SECRET}'",
        # two halves of one, put together by the loader
        "task: classify\nmodel: {name: '$'}\ndata: {root: '{oc.env:SECRET}'}\n"
        "name: '${model.name}${data.root}'\noutput_dir: '${name}'",
        "data: {root: '{oc.env:SECRET}'}\nname: '$${data.root}'\noutput_dir: '${name}'",
    ],
)
def test_no_resolver_reads_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    line = refusal(tmp_path / "a.yaml", text)
    assert "hunter2" not in line
    assert "resolvers are not run" in line or "a $ only ever begins" in line


def test_resolvers_are_refused_on_the_command_line_and_in_comparisons(tmp_path: Path) -> None:
    assert "resolvers are not run" in str(outcome([], ["data.root=${oc.env:HOME}"]))
    file = tmp_path / "a.yaml"
    file.write_text("tasks: {a: {configs: [b.yaml], overrides: ['x=${oc.env:HOME}']}}")
    with pytest.raises(ConfigError, match="resolvers are not run"):
        load_compare(file)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: ${trainer.epochs}\ntrainer: {epochs: '${seed}'}", "seed"),
        ("name: ${name}", "name"),
        ("norm: ${norm}", "norm"),
        ("norm: {options: {a: '${norm.options}'}}", ""),
        ("norm: {options: &a {b: *a}}", "Circular reference"),
        ("norm: {options: &a [*a]}", "Circular reference"),
        ("seed: 0x" + "f" * 8_000, "not valid YAML"),
        ("seed: " + "9" * 10_000, "not valid YAML"),
        ("seed: !!int x", "not valid YAML"),
        ("name: 2020-99-99", "not valid YAML"),
        ("name: !!binary '='", "expected text"),
        ("? [1, 2]\n: 3", "not valid YAML"),
        ("seed: 1\nseed: 1", "stands twice"),
        ("norm: {options: {a: 1, a: 2}}", "stands twice"),
        ("norm: {options: " + "[" * 600 + "]" * 600 + "}", "nested too deeply"),
        ("norm: {options: " + "{a: " * 100 + "1" + "}" * 100 + "}", "nested too deeply"),
        ("name: " + "x" * 20_000, "expected the name of a folder"),
        ("3: 4", "unknown key '3'"),
        ("base: 3", "expected a file"),
        ("base: {a: 1}", "expected a file"),
        ("base: [[a.yaml]]", "expected a file"),
        ('base: "a\\0b"', "expected a file"),
        ("base: /dev/zero", "not a file"),
        ("base: " + "a" * 5000, " ... "),
        ("base: ..", "not a file"),
        ("a" * (1 << 20) + ": 1", "not valid YAML"),
    ],
)
def test_hostile_values_are_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in refusal(tmp_path / "a.yaml", text)


def test_aliases_that_multiply_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for i in range(1, 12):
        lines.append(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]")
    text = "norm:\n  options:\n" + "".join(f"    {line}\n" for line in lines)
    assert "more than 10 aliases" in refusal(tmp_path / "a.yaml", text)


def test_references_that_multiply_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    lines = ["a0: xxxxxxxxxx"]
    for i in range(1, 12):
        reference = f"${{norm.options.a{i - 1}}}"
        lines.append(f"a{i}: '{reference * 10}'")
    text = "norm:\n  options:\n" + "".join(f"    {line}\n" for line in lines)
    assert "more than 10 values ${key}" in refusal(tmp_path / "a.yaml", text)


def test_an_alias_that_stays_small_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("data: {mean: &m [0.5, 0.5, 0.5], std: *m}")
    config = outcome([file])
    assert isinstance(config, Config)
    assert config.data.std == [0.5, 0.5, 0.5]


def test_base_files_that_multiply_are_refused(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i}.yaml").write_text(f"base: [{i + 1}.yaml, {i + 1}.yaml]")
    (tmp_path / "30.yaml").write_text("seed: 1")
    assert "more than 100 files" in str(outcome([tmp_path / "0.yaml"]))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "not a file" in str(outcome([tmp_path / "pipe.yaml"]))


def test_a_module_is_named_and_not_run_by_the_loader(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    file = tmp_path / "a.yaml"
    file.write_text("norm: {module: evil.py}\ntrainer: {loggers: [{class: os.system}]}")
    assert isinstance(outcome([file]), Config)
    assert not mark.exists()


@pytest.mark.parametrize(
    "text",
    ["=", "a", "a.b.c=1", "norm." * 200 + "a=1", "seed=" + "[" * 600, "seed=\0", "seed=&a *a"],
)
def test_hostile_overrides_are_refused_in_one_line(text: str) -> None:
    assert isinstance(outcome([], [text]), str)
