"""What only torch and timm know to be impossible: found by building without memory."""

from __future__ import annotations

import torch
from torch import nn

from vision.config import Config
from vision.errors import nearest
from vision.norms import Norm, list_norms, load_norm_module
from vision.registry import TASKS
from vision.tasks.base import VisionTask
from vision.tasks.optimizer import create_optimizer

_CLASSES = 1000  # of a data set that was not opened yet


def check_build(config: Config) -> None:
    """Build model and optimizer of `config` on the meta device, where tensors are only shapes.

    Norms of the user's own are registered. Raises ValueError (or FileNotFoundError), naming key,
    value, what was expected and the fix, for what cannot be built and for settings that the task
    has no use for.
    """
    if config.norm.module is not None:  # else their names are known already
        load_norm_module(config.norm.module)
        norms = {"norm.name": config.norm.name, "mae.decoder_norm": config.mae.decoder_norm}
        for key, name in norms.items():
            if name is not None and name not in list_norms():
                raise ValueError(f"{key} = {name!r}: no such norm; {nearest(name, list_norms())}")
    task: type[VisionTask] = TASKS.get(config.task)
    task.check(config)
    with torch.device("meta"):
        model, _ = task.create_model(config, config.data.num_classes or _CLASSES)
        create_optimizer(model, config.optim, config.trainer.batch_size_total)
    _check_loss_scaling(model, config.trainer.precision)


def _check_loss_scaling(model: nn.Module, precision: str) -> None:
    """Averages of gradients would be of gradients times a factor that changes, or infinite."""
    norms = (module for module in model.modules() if isinstance(module, Norm))
    averaging = sorted({type(norm).__name__ for norm in norms if not norm.exact_gradient})
    if precision == "16-mixed" and averaging:
        raise ValueError(
            f"trainer.precision = 16-mixed: {', '.join(averaging)} averages gradients over steps, "
            "and 16-mixed scales them by a factor that changes; use bf16-mixed or 32-true"
        )
