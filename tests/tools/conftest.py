"""What several tests of the tools share."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def vae() -> Callable[..., Any]:
    """A small VAE of 1, 2 or more blocks, whose latents are 2^(blocks - 1) times smaller."""

    import torch  # here, since few tests need them
    from diffusers import AutoencoderKL

    def make(blocks: int = 2) -> Any:
        torch.manual_seed(0)
        return AutoencoderKL(
            block_out_channels=(8,) * blocks,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            scaling_factor=0.5,
        )

    return make
