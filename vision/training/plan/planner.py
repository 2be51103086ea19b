"""Bytes per GPU, seconds per step and GPU hours of a config on a number of H100s.

docs/scaling.md has the assumptions. FSDP shards as ZeRO-3 (https://arxiv.org/abs/1910.02054);
checkpointing keeps the inputs of blocks (https://arxiv.org/abs/1604.06174).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any

from vision.config import Config
from vision.config.schema import DataConfig
from vision.datasets.sampler import split_batch, steps_per_epoch, training_length
from vision.training.plan.hardware import ring_bandwidth, value
from vision.training.plan.step_cost import StepCost, count_step

IMAGENET = (1_281_167, 1000)
_KNOWN = {  # images of the training split, classes
    "digits": (1_257, 10),
    "mnist5k": (3_000, 10),
    "torch/cifar10": (50_000, 10),
    "torch/cifar100": (50_000, 100),
    "torch/mnist": (60_000, 10),
    "torch/kmnist": (60_000, 10),
    "torch/fashion_mnist": (60_000, 10),
    "torch/imagenet": IMAGENET,
}


def training_set(config: DataConfig, images: int | None = None) -> tuple[int, int]:
    """Training images and classes of a data set, by its name; `images` where that is not known.

    Other data of 1,000 classes, and latents that do not say, are taken for ImageNet-1k. Raises
    ValueError for the rest without `images`.
    """
    classes = config.num_classes
    like_imagenet = classes == 1000 or (config.name == "latents" and classes is None)
    known = _KNOWN.get(config.name, IMAGENET if like_imagenet else (None, None))
    count, classes = images or known[0], classes or known[1]
    if count is None or classes is None:
        raise ValueError(
            f"data.name = {config.name!r}: a plan opens no data and does not know how many images "
            "and classes it has; give --images NUMBER and data.num_classes=NUMBER"
        )
    return int(count * config.train_fraction), classes


@dataclass(frozen=True)
class Layout:
    """How a training is spread over GPUs. `precision` as `trainer.precision`, resolved."""

    devices: int
    images: int  # per GPU and micro-batch
    accumulate: int  # micro-batches per optimizer step
    precision: str = "bf16-mixed"
    sharded: bool = False  # FSDP: weights, gradients and optimizer state; otherwise DDP
    checkpointing: bool = False  # every block computed again in the backward
    compiled: bool = False  # torch.compile


@dataclass(frozen=True)
class TrainingPlan:
    """One layout of a training: bytes on each GPU, seconds of an optimizer step, GPU hours."""

    layout: Layout
    weights: float  # with FSDP two gathered blocks and their gradients, too
    gradients: float
    optimizer_state: float
    ema: float
    activations: float
    compute: float  # seconds of all micro-batches
    optimizer: float  # seconds
    sent: float  # bytes that each GPU passes on
    communication: float  # seconds that no computation hides
    flops: int  # of the model on one GPU; nothing counts twice
    steps: int  # of the whole training

    @property
    def memory(self) -> float:
        """All bytes, with the reserve."""
        model = self.weights + self.gradients + self.optimizer_state + self.ema
        return model + self.activations + value("reserve")

    @property
    def seconds(self) -> float:
        """Of one optimizer step."""
        return self.compute + self.optimizer + self.communication

    @property
    def gpu_hours(self) -> float:
        """Of the training alone, all GPUs together."""
        return self.steps * self.seconds * self.layout.devices / 3600


class Planner:
    """Plans of one config. `images`: see `training_set`. Raises ValueError as that does."""

    def __init__(self, config: Config, images: int | None = None) -> None:
        self.config = config
        self.images, classes = training_set(config.data, images)
        self.steps_per_epoch = steps_per_epoch(self.images, config.trainer.batch_size_total)
        self.length = training_length(config.trainer, self.steps_per_epoch)  # steps, epochs
        # (precision, images) -> StepCost
        self.count = functools.cache(functools.partial(count_step, config, classes))

    def layout(self, devices: int) -> Layout:
        """What the config says. Raises ValueError if its batch does not divide."""
        config, trainer = self.config, self.config.trainer
        multiple = 2 if config.mix.mixup or config.mix.cutmix else 1
        return Layout(
            devices,
            *split_batch(trainer.batch_size_total, trainer.batch_size_device, devices, multiple),
            precision="bf16-mixed" if trainer.precision == "auto" else trainer.precision,
            sharded=trainer.strategy.startswith("fsdp"),
            checkpointing=config.task == "dit" and config.dit.gradient_checkpointing,
            compiled=trainer.compile,
        )

    def plan(self, layout: Layout) -> TrainingPlan:
        """The plan of one layout. Raises ValueError as `count_step` does."""
        cost = self.count(layout.precision, layout.images)
        size, shards = cost.parameter_bytes, layout.devices if layout.sharded else 1
        weights, trained = size * cost.parameters / shards, size * cost.trainable / shards
        gathered = 4 * size * cost.largest_block if shards > 1 else 0
        buckets = trained if layout.devices > shards else 0  # copies of the gradients, by DDP
        ema = weights if self.config.ema.decay is not None else 0.0
        one = any(name in self.config.optim.opt for name in ("sgd", "lars", "lion", "momentum"))
        state = trained if one else 2 * trained
        # weights, gradients and state are read, weights and state written
        moved = 3 * trained + 2 * state + 3 * ema
        micro_batch = _compute(cost, layout)
        sent, communication = _communicate(cost, layout, micro_batch)
        return TrainingPlan(
            layout,
            weights=weights + gathered,
            gradients=trained + buckets,
            optimizer_state=state,
            ema=ema,
            activations=cost.kept_checkpointed if layout.checkpointing else cost.kept,
            compute=micro_batch * layout.accumulate,
            optimizer=moved / (value("bandwidth") * value("memory_reached")),
            sent=sent,
            communication=communication,
            flops=(cost.forward_flops + cost.backward_flops) * layout.accumulate,
            steps=self.length[0],
        )

    def variants(self, devices: int) -> dict[str, TrainingPlan]:
        """The config's plan on `devices` GPUs, then with one setting changed at a time, by name."""
        base = self.layout(devices)
        low, probe = base.precision != "32-true", self.config.model.linear_probe
        layouts = {"as the config says": base}
        for name, key, possible, on in (  # `check_trainer` refuses what is not possible
            ("bf16", "precision", True, low),
            ("FSDP", "sharded", devices > 1 and not (base.compiled or probe), base.sharded),
            ("checkpointing", "checkpointing", not probe, base.checkpointing),
            ("compile", "compiled", not base.sharded, base.compiled),
        ):
            new = ("32-true" if low else "bf16-mixed") if key == "precision" else not on
            if possible:
                changes: dict[str, Any] = {key: new}
                layouts[f"with{'out' * on} {name}"] = dataclasses.replace(base, **changes)
        return {name: self.plan(layout) for name, layout in layouts.items()}


def _compute(cost: StepCost, layout: Layout) -> float:
    """Seconds of a micro-batch: matrix products and memory traffic."""
    rate = value("tf32" if layout.precision == "32-true" else "bf16") * value("flops_reached")
    bandwidth = value("bandwidth") * value("memory_reached")
    traffic = value("traffic_autocast" if "mixed" in layout.precision else "traffic") * cost.kept
    traffic *= value("traffic_compiled") if layout.compiled else 1
    seconds = (cost.forward_flops + cost.backward_flops) / rate + traffic / bandwidth
    return seconds * 4 / 3 if layout.checkpointing else seconds  # the forward is a third of it


def _communicate(cost: StepCost, layout: Layout, micro_batch: float) -> tuple[float, float]:
    """Bytes that each GPU passes on in a step, and the seconds that no computation hides."""
    ring = (layout.devices - 1) / layout.devices * cost.parameter_bytes
    if layout.sharded:  # per micro-batch: weights gathered twice, gradients scattered
        sent, times = ring * (2 * cost.parameters + cost.trainable), layout.accumulate
    else:  # once: gradients reduced during the backward, two thirds of the micro-batch
        sent, times, micro_batch = 2 * ring * cost.trainable, 1, micro_batch * 2 / 3
    shown = max(sent / ring_bandwidth(layout.devices) - micro_batch, 0.0)
    return sent * times, shown * times
