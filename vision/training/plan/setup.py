"""How a config is spread over GPUs, as far as memory and time depend on it."""

from __future__ import annotations

from dataclasses import dataclass

from vision.config import Config
from vision.datasets.sampler import split_batch


@dataclass(frozen=True)
class Setup:
    """One way to run a config. `precision` as `trainer.precision`, resolved."""

    devices: int
    images: int  # per GPU and micro-batch
    accumulate: int  # micro-batches per optimizer step
    precision: str = "bf16-mixed"
    sharded: bool = False  # FSDP: weights, gradients and optimizer state; otherwise DDP
    checkpointing: bool = False  # every block computed again in the backward
    compiled: bool = False  # torch.compile


def setup_of(config: Config, devices: int) -> Setup:
    """What `config` says, on `devices` GPUs. Raises ValueError if its batch does not divide."""
    options = config.trainer
    multiple = 2 if config.mix.mixup or config.mix.cutmix else 1
    images, accumulate = split_batch(
        options.batch_size_total, options.batch_size_device, devices, multiple
    )
    return Setup(
        devices,
        images,
        accumulate,
        precision="bf16-mixed" if options.precision == "auto" else options.precision,
        sharded=options.strategy.startswith("fsdp"),
        checkpointing=config.task == "dit" and config.dit.gradient_checkpointing,
        compiled=options.compile,
    )
