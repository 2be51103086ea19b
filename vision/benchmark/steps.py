"""Training steps of the three tasks at their published sizes, with all that a task does in one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vision.config import Config
from vision.datasets.dataset import Batch
from vision.registry import TASKS
from vision.tasks.base import VisionTask
from vision.tasks.optimizer import create_optimizer

HEADS = 16  # of SeeDNorm
CLASSES = 1000


@dataclass(frozen=True)
class StepSettings:
    """A model of a task; `model_options` are keys of the config's section `model`."""

    model: str
    task: str
    name: str  # model.name
    batch: int
    img_size: int = 224
    in_chans: int = 3
    model_options: dict[str, Any] = field(default_factory=dict)


STEPS = (
    StepSettings("ViT-B", "classify", "vit_base_patch16_224", batch=64),
    StepSettings("MAE-B", "mae", "vit_base_patch16_224", batch=128),
    StepSettings("DiT-B/4", "dit", "dit_b_4", batch=128, img_size=32, in_chans=4),
)
_NO_RATE = 1e-30  # of AdamW, which computes the same with any


def training_step(
    settings: StepSettings,
    norm: str,
    compiled: bool,
    device: torch.device,
    dtype: torch.dtype = torch.bfloat16,
    norm_options: dict[str, Any] | None = None,
) -> Callable[[], None]:
    """A function that trains one step on random images, under autocast where not in float32.

    The learning rate is next to nothing. At a real one a few steps on one batch of noise drive some
    norms where their slopes are nearly 0, and gradients too small for normal numbers take a CPU
    several times as long: steps of Derf took 2.5 times LayerNorm's, with a kernel that is faster.
    """
    torch.manual_seed(0)
    task = create(settings, norm, compiled, norm_options).to(device).train()
    batch = random_batch(settings, task, device)
    optim = replace(task.config.optim, lr=_NO_RATE)
    optimizer = create_optimizer(task.model, optim, settings.batch)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = task.compute_loss(batch)
        loss.backward()
        optimizer.step()

    return step


def create(
    settings: StepSettings, norm: str, compiled: bool, norm_options: dict[str, Any] | None = None
) -> VisionTask:
    """The task of `settings` on 1000 classes; SeeDNorm has 16 heads where no options are given."""
    config = Config(task=settings.task)
    config.model = replace(config.model, name=settings.name, **settings.model_options)
    size, channels = settings.img_size, settings.in_chans
    config.data = replace(config.data, img_size=size, in_chans=channels, num_classes=CLASSES)
    if norm_options is None:
        norm_options = {"num_heads": HEADS} if norm == "seednorm" else {}
    config.norm = replace(config.norm, name=norm, options=norm_options)
    config.trainer = replace(config.trainer, compile=compiled)
    make: type[VisionTask] = TASKS.get(settings.task)
    return make(config, list(map(str, range(CLASSES))), steps_per_epoch=1)


def random_batch(settings: StepSettings, task: VisionTask, device: torch.device) -> Batch:
    """Images of noise with the draws that the task needs, on `device`."""
    count, size = settings.batch, settings.img_size
    images = torch.randn(count, settings.in_chans, size, size, device=device)
    numbers = torch.arange(count, device=device)
    batch = Batch(images, numbers % CLASSES, numbers, torch.tensor(0, device=device))
    if task.draws is None:
        return batch
    return batch._replace(draws=task.draws_of(batch, training=True))
