"""What a config needs on a number of GPUs, and what each way to save would change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from vision.config import Config
from vision.datasets.sampler import steps_per_epoch
from vision.training.plan.images import Known, training_set
from vision.training.plan.memory import Memory, memory
from vision.training.plan.record import record
from vision.training.plan.recording import Recording
from vision.training.plan.setup import Setup, setup_of
from vision.training.plan.step import Step, step


@dataclass(frozen=True)
class Estimate:
    """One setup of a config: bytes, seconds, and the hours of its whole training."""

    setup: Setup
    memory: Memory
    step: Step
    steps: int

    @property
    def gpu_hours(self) -> float:
        """Training alone, all GPUs together."""
        return self.steps * self.step.seconds * self.setup.devices / 3600


class Planner:
    """Estimates of one config, which share recordings of its model.

    `images`: those of the training split, where `training_set` does not know. Raises ValueError.
    """

    def __init__(self, config: Config, images: int | None = None) -> None:
        self.config = config
        self.data: Known = training_set(config.data, images)
        self.steps_per_epoch = steps_per_epoch(self.data.images, config.trainer.batch_size_total)
        self.steps = self.steps_per_epoch * config.trainer.epochs
        self._recordings: dict[tuple[str, bool], Recording] = {}

    def recording(self, precision: str, gpu_kernels: bool = True) -> Recording:
        """The model's step in a precision."""
        key = (precision, gpu_kernels)
        if key not in self._recordings:
            self._recordings[key] = record(self.config, self.data.classes, *key)
        return self._recordings[key]

    def estimate(self, setup: Setup, gpu_kernels: bool = True) -> Estimate:
        """Memory and time of `setup`."""
        recording = self.recording(setup.precision, gpu_kernels)
        return Estimate(
            setup,
            memory(self.config, recording, setup),
            step(self.config, recording, setup),
            self.steps,
        )

    def on(self, devices: int) -> Estimate:
        """As the config says, on `devices` GPUs. Raises ValueError if its batch does not divide."""
        return self.estimate(setup_of(self.config, devices))

    def savings(self, devices: int, kernels: bool = False) -> dict[str, Estimate]:
        """The config on `devices` GPUs with one setting changed at a time, by name.

        `kernels`: SeeDNorm's plain formula too, where the config has that norm.
        """
        base = setup_of(self.config, devices)
        low = base.precision != "32-true"
        changes: dict[str, dict[str, Any]] = {
            f"{'without' if low else 'with'} bf16": {
                "precision": "32-true" if low else "bf16-mixed"
            },
            f"with {'DDP' if base.sharded else 'FSDP'}": {"sharded": not base.sharded},
            f"{_without(base.checkpointing)} checkpointing": {
                "checkpointing": not base.checkpointing
            },
            f"{_without(base.compiled)} compile": {"compiled": not base.compiled},
        }
        # not on offer: one device has nothing to split, `check_devices` refuses the others
        refused = set()
        if devices == 1 or self.config.model.linear_probe or base.compiled:
            refused.add("sharded")
        if base.sharded:
            refused.add("compiled")
        if self.config.model.linear_probe:
            refused.add("checkpointing")  # a frozen encoder keeps nothing
        changes = {name: c for name, c in changes.items() if not refused & c.keys()}
        found = {"as the config says": self.estimate(base)}
        for name, change in changes.items():
            changed = dataclasses.replace(base, **change)
            found[name] = self.estimate(changed)
        if kernels and self.config.norm.name == "seednorm":
            found["SeeDNorm by its plain formula"] = self.estimate(base, gpu_kernels=False)
        return found


def _without(on: bool) -> str:
    return "without" if on else "with"
