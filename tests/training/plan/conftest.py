import functools
from collections.abc import Callable

import pytest

from vision.config import Config, load_config
from vision.training.plan.record import record
from vision.training.plan.recording import Recording

Recorded = Callable[..., Recording]

SMALL = [
    *("model.name=vit_tiny_patch16_224", "model.patch_size=4", "model.embed_dim=48"),
    *("model.depth=5", "model.num_heads=3", "data.img_size=16", "data.in_chans=3"),
    *("data.mean=[0,0,0]", "data.std=[1,1,1]", "trainer.batch_size_total=64"),
]


@pytest.fixture(scope="session")
def small() -> Config:
    """Five blocks of width 48 on 16 patches and a class token; hides the fixture of overrides."""
    return load_config([], [*SMALL, "norm.name=layernorm"]).config


@pytest.fixture(scope="session")
def small_seednorm() -> Config:
    return load_config([], [*SMALL, "norm.name=seednorm", "norm.options={num_heads: 4}"]).config


@pytest.fixture(scope="session")
def recorded(small: Config, small_seednorm: Config) -> Recorded:
    """`record` in float32 for ten classes, by the norm's name and `gpu_kernels`; each once."""
    configs = {"layernorm": small, "seednorm": small_seednorm}

    @functools.cache
    def once(norm: str, gpu_kernels: bool = False) -> Recording:
        return record(configs[norm], 10, "32-true", gpu_kernels)

    return once
