"""Launch configurations: within what a GPU can launch, and by measurement where asked for."""

from __future__ import annotations

import pytest
import torch

from vision.norms.kernels import triton_tune
from vision.norms.kernels.triton_config import MAX_DIM, Config, backward_config, forward_config


@pytest.mark.parametrize("wave", [32, 64])
@pytest.mark.parametrize("dim", [1, 7, 192, 768, 1152, 4096, 16384, MAX_DIM])
def test_configurations_can_be_launched(dim, wave):
    for num_heads in {1, dim if dim < 64 else 16 if dim % 16 == 0 else 1}:
        for config in (
            forward_config(dim, num_heads, wave),
            backward_config(dim, num_heads, torch.device("cpu"), wave),
        ):
            assert 128 <= config.warps * wave <= 1024
            assert config.rows & (config.rows - 1) == 0 and config.warps & (config.warps - 1) == 0


def test_the_default_is_taken_without_measuring(monkeypatch):
    monkeypatch.delenv("VISION_NORM_AUTOTUNE", raising=False)
    default = Config(1, 4, 8)
    assert triton_tune.tuned("key", default, lambda config: pytest.fail("launched")) is default


def test_autotuning_measures_once_and_keeps_the_fastest(monkeypatch):
    monkeypatch.setenv("VISION_NORM_AUTOTUNE", "1")
    monkeypatch.setattr(triton_tune, "_chosen", {})
    launched = []

    def seconds(work):
        work()
        return float("inf") if launched[-1].warps == 2 else launched[-1].programs

    monkeypatch.setattr(triton_tune, "_seconds", seconds)
    for _ in range(2):
        assert triton_tune.tuned("key", Config(1, 4, 8), launched.append) == Config(1, 4, 4)
    assert len(launched) == 3 * 2 * 3
