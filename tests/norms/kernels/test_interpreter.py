"""The Triton kernels without a GPU: test_formula.py, test_hard_rows.py, test_ops.py and
test_triton_norms.py under Triton's interpreter.

In a process of its own, because Triton decides when it is imported whether it interprets.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")


@pytest.mark.skipif(torch.cuda.is_available(), reason="those files run on this GPU directly")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="is the interpreter already")
def test_triton_kernels_follow_the_formula_under_the_interpreter():
    files = [
        str(Path(__file__).with_name(f"test_{name}.py"))
        for name in ("formula", "hard_rows", "ops", "triton_norms")
    ]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *files],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert "skipped" not in result.stdout, result.stdout[-2000:]
