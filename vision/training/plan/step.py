"""Seconds of one optimizer step: a roofline per kernel, and the communication that shows.

    kernel         max(FLOPs / (peak x share), bytes / (bandwidth x share), launch)
    micro-batch    the sum over its kernels, which follow one another; checkpointing adds those of
                   the blocks' forward once more (roofline: Williams et al. 2009,
                   https://doi.org/10.1145/1498765.1498785)
    optimizer      bytes only: AdamW reads weight, gradient, two moments and writes three of them;
                   the EMA reads two and writes one
    DDP            one all-reduce of the gradients per step: 2 (N-1)/N x bytes through each GPU
                   (ring; Patarasuk, Yuan 2009), hidden behind the last micro-batch's backward but
                   for the last bucket of 25 MiB
    FSDP           per micro-batch two all-gathers of the weights and one reduce-scatter of the
                   gradients, (N-1)/N x bytes each, in the precision of the weights (that is what
                   `vision.tasks.sharding` does), hidden behind the micro-batch but for one block's

Data loading, validation and logging are taken to cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vision.config import Config
from vision.training.plan.hardware import link_bandwidth, value
from vision.training.plan.memory import moments_of
from vision.training.plan.recording import Kernel, Recording
from vision.training.plan.setup import Setup

_BUCKET = 25 * 2**20  # bytes; torch's DistributedDataParallel(bucket_cap_mb=25)


@dataclass(frozen=True)
class Step:
    """Seconds of one optimizer step, and what it is made of."""

    compute: float  # all micro-batches
    optimizer: float
    sent: float  # bytes that each GPU passes on
    exposed: float  # seconds of communication that nothing hides
    flops: float  # of the model on one GPU: nothing computed twice

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute + self.optimizer + self.exposed

    @property
    def utilization(self) -> float:
        """Model FLOPs over those of the bf16 peak (MFU; Chowdhery et al. 2022, 2204.02311)."""
        return self.flops / self.seconds / value("bf16")


def step(config: Config, recording: Recording, setup: Setup) -> Step:
    """The step of `setup`; `recording` is of its precision."""
    kernels = recording.fused if setup.compiled else recording.kernels
    backward = seconds({k: n for k, n in kernels.items() if k.backward}, setup.images)
    micro = seconds(kernels, setup.images)
    if setup.checkpointing:
        again = seconds({k: n for k, n in kernels.items() if k.in_block}, setup.images)
        micro, backward = micro + again, backward + again
    sent, exposed = _communication(recording, setup, micro, backward)
    each = recording.flops(backward=False) + recording.flops(backward=True)
    return Step(
        compute=micro * setup.accumulate,
        optimizer=_optimizer(config, recording, setup),
        sent=sent,
        exposed=exposed,
        flops=each * setup.images * setup.accumulate,
    )


def seconds(kernels: Mapping[Kernel, int], images: int) -> float:
    """Time of kernels, so many of each, one after another, for a micro-batch."""
    bandwidth = value("bandwidth") * value("bandwidth_share")
    total = 0.0
    for kernel, number in kernels.items():
        computed = kernel.flops.at(images) / _rate(kernel.rate)
        moved = kernel.bytes.at(images) / bandwidth
        total += number * max(computed, moved, value("launch"))
    return total


def _rate(name: str) -> float:
    """FLOP/s reached by a kind of kernel."""
    if name.startswith("attention"):
        return value(name.removeprefix("attention_")) * value("attention_share")
    if name == "grouped":
        return value("fp32") * value("grouped_share")
    return value(name) * value("matmul_share")


def _optimizer(config: Config, recording: Recording, setup: Setup) -> float:
    shards = setup.devices if setup.sharded else 1
    passes = 3 + 2 * moments_of(config.optim.opt)  # read all, write all but the gradient
    moved = passes * recording.trainable
    moved += 3 * recording.parameters if config.ema.decay is not None else 0
    bandwidth = value("bandwidth") * value("bandwidth_share")
    return moved * recording.weight_bytes / shards / bandwidth


def _communication(
    recording: Recording, setup: Setup, micro: float, backward: float
) -> tuple[float, float]:
    """Bytes that each GPU passes on in a step, and the seconds that show."""
    if setup.devices == 1:
        return 0.0, 0.0
    share = (setup.devices - 1) / setup.devices
    bandwidth = link_bandwidth(setup.devices)
    if not setup.sharded:
        size = recording.weight_bytes * recording.trainable
        sent = 2 * share * size
        last = 2 * share * min(_BUCKET, size) / bandwidth
        return sent, max(sent / bandwidth - backward, last)
    size = recording.weight_bytes
    sent = share * size * (2 * recording.parameters + recording.trainable)
    first = share * size * 2 * recording.largest_block / bandwidth
    return sent * setup.accumulate, setup.accumulate * max(sent / bandwidth - micro, first)
