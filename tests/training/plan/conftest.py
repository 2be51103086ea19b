import functools
from collections.abc import Callable

import pytest

from vision.config import Config, load_config
from vision.training.plan.step_cost import StepCost, count_step

Counted = Callable[..., StepCost]

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
def counted() -> Counted:
    """The cost of a step on 4 images in float32 for ten classes, by norm; each once."""
    eager = "norm.options={num_heads: 4, backend: eager}"
    names = {
        "layernorm": ["norm.name=layernorm"],
        "seednorm": ["norm.name=seednorm", "norm.options={num_heads: 4}"],
        "formula": ["norm.name=seednorm", eager],
    }

    @functools.cache
    def once(norm: str) -> StepCost:
        return count_step(load_config([], [*SMALL, *names[norm]]).config, 10, "32-true", 4)

    return once
