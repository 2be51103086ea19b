"""The examples of docs/extending.md, as a reader would follow them in a copy of this repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
# file -> text, of the blocks that begin with the name of a file
FILES = dict(re.findall(r"(?ms)^```python\n# (\S+\.py)\n(.*?)^```$", TEXT))
KERNEL = re.findall(r"(?ms)^```cpp\n(.*?)^```$", TEXT)[0]
COMMANDS = re.findall(r"(?m)^```sh\n(.*)\n```$", TEXT)
FORMULAS = "FORMULAS: dict[str, Formula] = {\n"


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == code, f"{arguments}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def write(folder: Path, name: str, text: str) -> None:
    assert not (folder / name).exists(), f"{name} is there already"
    (folder / name).write_text(text, encoding="utf-8")


def draw(folder: Path, seed: int, count: int = 12) -> None:
    folder.mkdir()
    noise = np.random.default_rng(seed)
    for index in range(count):
        pixels = noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copy")
    for part in ("vision", "tools", "configs", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture(scope="module")
def train(copy: Path, small: list[str]):
    def call(command: str) -> dict[str, object]:
        """A `tools/train.py` line, on a model and data small enough for two steps; its summary."""
        python, *arguments = command.split()
        assert python == "python"
        more = [*small, "trainer.epochs=1", "data.train_fraction=0.07", "output_dir=runs"]
        run(copy, *arguments, *more)
        newest = max(copy.glob("runs/*/summary.json"), key=lambda path: path.stat().st_mtime)
        return json.loads(newest.read_text())

    return call


def test_the_page_has_the_examples_that_are_tested_here():
    assert len(COMMANDS) == 3 and list(FILES) == [
        "my_norms.py",
        "tests/norms/conftest.py",
        "softsign.py",
        "vision/tasks/rotation.py",
        "tests/tasks/test_rotation.py",
        "vision/metrics/generative/coverage.py",
        "tests/metrics/test_coverage.py",
    ]


def test_the_kernel_agrees_with_its_formula(tmp_path: Path) -> None:
    write(tmp_path, "softsign.cpp", KERNEL)
    write(tmp_path, "softsign.py", FILES["softsign.py"])
    program = """
import torch
from vision.norms import create_norm
from vision.norms.registry import load_norm_module

load_norm_module("softsign.py")
x, found = torch.randn(40, 24, requires_grad=True), []
for backend in ("compiled", "eager"):
    norm = create_norm("softsign", 24, backend=backend)
    y = norm(x)
    found.append([y, *torch.autograd.grad(y.square().sum(), [x, *norm.parameters()])])
    print(y.grad_fn.name())
torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "FusedNorm" in result.stdout.splitlines()[0]


@pytest.mark.slow
def test_the_examples_work_from_one_file_each(copy: Path, train) -> None:
    write(copy, "my_norms.py", FILES["my_norms.py"])
    summary = train(COMMANDS[0])
    assert (summary["norm"], summary["steps"]) == ("unitnorm", 2)

    for name in list(FILES)[3:]:
        write(copy, name, FILES[name])
    assert train(COMMANDS[1])["task"] == "rotation"

    draw(copy / "real", 0)
    draw(copy / "fake", 1)
    printed = run(copy, *COMMANDS[2].split()[1:], "--cache", "off")
    value = re.search(r"coverage\[run:vit_ti_unitnorm\]\W+([\d.]+)", printed)
    assert value and 0 <= float(value[1]) <= 1, printed
    own = [name for name in FILES if "/test_" in name]
    run(copy, "-m", "pytest", *own, "tests/test_registry.py")


@pytest.mark.slow
def test_a_norm_in_the_package_needs_a_formula_and_no_more(copy: Path) -> None:
    write(copy, "vision/norms/unitnorm.py", FILES["my_norms.py"])
    tests = ["-m", "pytest", "tests/norms/test_formulas.py", "tests/norms/test_registry.py"]
    told = run(copy, *tests, "-k", "every_norm", code=1)
    assert "add their formulas to FORMULAS in tests/norms/conftest.py" in told

    conftest = copy / "tests" / "norms" / "conftest.py"
    text = conftest.read_text(encoding="utf-8")
    assert text.count(FORMULAS) == 1
    conftest.write_text(text.replace(FORMULAS, FORMULAS + FILES["tests/norms/conftest.py"]))
    passed = run(copy, *tests, "-k", "every_norm or unitnorm")
    assert "failed" not in passed
