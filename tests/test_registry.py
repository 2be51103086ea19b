"""Names come from a folder's files; what stands in them is imported when it is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from vision.registry import TASKS

ROOT = Path(__file__).parents[1]


def test_a_task_is_a_file_and_is_imported_alone() -> None:
    code = (
        "import sys; from vision.registry import TASKS; "
        "assert {'classify', 'dit', 'mae'} <= {*TASKS.names()}; "
        "assert 'torch' not in sys.modules; print(TASKS.get('classify').__name__); "
        "assert 'vision.tasks.dit' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ClassifyTask\n"


def test_each_built_in_file_registers_its_own_name() -> None:
    for name in TASKS.names():
        assert TASKS.get(name).__module__ == f"vision.tasks.{name}"


def test_an_unknown_name_tells_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown task 'clasify'; did you mean 'classify'"):
        TASKS.get("clasify")
