"""What the tests of models share: a small ViT's configuration."""

from collections.abc import Callable

import pytest

from vision.config import Config

WIDTH, HEADS = 48, 3  # of the model


@pytest.fixture(scope="session")
def vit_config() -> Callable[..., Config]:
    """A configuration for images [1, 8, 8], with settings of `model`."""

    def make(task: str = "classify", depth: int = 2, **model: object) -> Config:
        config = Config(task=task)
        config.model.name, config.model.patch_size = "vit_tiny_patch16_224", 2
        config.model.embed_dim, config.model.depth, config.model.num_heads = WIDTH, depth, HEADS
        config.data.img_size = config.mae.decoder_embed_dim = 8
        config.data.mean = config.data.std = [0.5]
        config.data.in_chans, config.mae.decoder_depth, config.mae.decoder_num_heads = 1, 1, 2
        for key, value in model.items():
            setattr(config.model, key, value)
        return config

    return make
