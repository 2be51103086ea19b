"""trainer.deterministic: the same bits in two runs, or the operation that cannot."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

OVERWRITES = """
import torch
from torch import Tensor

from vision.norms.base import Norm
from vision.norms.registry import register_norm


@register_norm("overwrites")
class Overwrites(Norm):
    def __init__(self, dim, *, affine=True, channels_first=False, device=None, dtype=None):
        super().__init__(dim, affine=affine, channels_first=channels_first)

    def normalize(self, x: Tensor) -> Tensor:
        return x.clone().put_(torch.tensor([0, 0]), torch.zeros(2))  # whichever comes last
"""


@pytest.mark.slow
def test_an_operation_that_cannot_is_named_in_one_line(
    forked: Callable, small: list[str], tmp_path: Path
) -> None:
    module = tmp_path / "overwrites.py"
    module.write_text(OVERWRITES)
    norm = ["norm.name=overwrites", f"norm.module={module}", f"output_dir={tmp_path}", "name=run"]
    run = ["tools/train.py", "configs/vit_ti.yaml", *small, *norm, "trainer.deterministic=true"]
    errors = forked(*run, code=2).stderr
    (line,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert line.startswith("error: trainer.deterministic = true: put_ has no deterministic")
    assert "Traceback" not in errors


@pytest.mark.gpu
@pytest.mark.parametrize("task", ["classify", "mae", "dit"])
def test_two_runs_on_a_gpu_give_the_same_bits(task: str, fit: Callable) -> None:
    options = ["trainer.accelerator=gpu", "trainer.deterministic=true", "trainer.precision=auto"]
    try:
        (_, first), (_, second) = (fit(task, *options, steps=5) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
