"""Launch configurations: within what a GPU can launch."""

from __future__ import annotations

import pytest
import torch

from vision.norms.kernels.triton_config import MAX_DIM, backward_config, forward_config


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
