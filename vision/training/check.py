"""What is known to be impossible before torch is imported: each room's check of its section."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vision.config import LoadedConfig, load_config
from vision.config.load import split_arguments
from vision.config.schema import Config
from vision.datasets.check import check_data
from vision.training.devices import check_trainer


def load_checked(arguments: Sequence[str], data: bool = True) -> LoadedConfig:
    """The configuration meant by `CONFIG.yaml [OVERLAY.yaml ...] [key=value ...]`, checked.

    `data` false leaves out where the data is, as a plan does without it. Raises ConfigError with
    the place of the key at fault. Imports no torch: whether the model can be built is known to
    `vision.training.build.check_build`.
    """
    loaded = load_config(*split_arguments(arguments))
    with loaded.located():
        check_settings(loaded.config)
        if data:
            check_data(loaded.config.data)
    return loaded


def check_config(config: Config) -> None:
    """Raise ValueError (or FileNotFoundError) naming key, value, expectation and fix."""
    check_settings(config)
    check_data(config.data)


def check_settings(config: Config) -> None:
    """As `check_config`, but for the data, which a plan does without."""
    module = config.norm.module
    if module is not None and module.endswith(".py") and not Path(module).is_file():
        raise FileNotFoundError(
            f"norm.module = {module}: no such file; the path is relative to the config that names "
            "it, or to the working directory on the command line"
        )
    check_trainer(config)
    model, augment = config.model, config.data.augment
    if model.pretrained and model.init_from is not None:
        raise ValueError(
            f"model.pretrained = true: the weights are those of model.init_from = "
            f"{model.init_from}; leave one of them out"
        )
    # timm's create_transform: a policy replaces colour jitter, but for 3-Augment, which has its own
    if augment.color_jitter and augment.auto_augment and "3a" not in augment.auto_augment:
        raise ValueError(
            f"data.augment.color_jitter = {augment.color_jitter}: has no effect beside "
            f"data.augment.auto_augment = {augment.auto_augment}, which replaces it; set it to 0"
        )
