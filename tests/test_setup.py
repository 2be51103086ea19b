"""The ways to install agree with each other."""

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_environment_yml_lists_what_pyproject_lists() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = set(project["dependencies"]) | set(extras["dev"])
    for name in ("hf", "loggers", "mnist"):
        wanted = (wanted - {f"vision[{name}]"}) | set(extras[name])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert set(conda[-1]["pip"]) - {"-e ."} == wanted
    assert f"python{project['requires-python']}" in conda


def imported(code: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_every_import_is_a_declared_dependency() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    pattern = r'^(?:hf = \[|\s+)"([\w.-]+?)(?:\[|>=|")'
    declared = {name.lower() for name in re.findall(pattern, text, re.M)}
    modules = {"sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}
    for file in (ROOT / "vision").rglob("*.py"):
        for name in imported(file.read_text()):
            # triton comes with torch, on the systems where it exists; Liger is an optional peer
            if name in sys.stdlib_module_names or name in {"vision", "triton", "liger_kernel"}:
                continue
            assert modules.get(name, name).replace("_", "-").lower() in declared, (file, name)


def test_ci_runs_make_test() -> None:
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_the_citation_is_of_this_version() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert all(work["authors"] and work["title"] for work in citation["references"])
