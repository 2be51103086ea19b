"""Bytes on each GPU at the end of a forward pass, when most is kept.

P parameters of which T are trained, w bytes each (4; 2 in bf16-true):

    weights      w P, and what autocast keeps of them in 16 bits (counted with the activations)
    gradients    w T, twice with DDP, whose buckets are copies (gradient_as_bucket_view is off)
    moments      AdamW two, momentum (SGD, LARS) one, w T each
    EMA          w P
    activations  what autograd keeps: measured on fake tensors by saved_tensors_hooks (record.py);
                 checkpointed (Chen et al. 2016, https://arxiv.org/abs/1604.06174): the input of
                 each block, and all of one

FSDP (ZeRO-3, Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054) divides weights, gradients,
moments and EMA by the number of GPUs, and gathers two blocks at a time (one is computed, one
fetched). That torch.compile keeps fewer activations is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from vision.config import Config
from vision.training.plan.hardware import value
from vision.training.plan.recording import Recording
from vision.training.plan.setup import Setup


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU."""

    weights: float
    gradients: float
    moments: float
    ema: float
    activations: float
    gathered: float  # FSDP: parameters and gradients of the blocks that are whole just now

    @property
    def total(self) -> float:
        """All of it and the reserve of `hardware.FIGURES`."""
        kept = self.weights + self.gradients + self.moments + self.ema
        return kept + self.activations + self.gathered + value("reserve")

    @property
    def fits(self) -> bool:
        """Whether a GPU has as much."""
        return self.total <= value("memory")


def memory(config: Config, recording: Recording, setup: Setup) -> Memory:
    """Bytes on each GPU for `setup`."""
    size = recording.weight_bytes
    shards = setup.devices if setup.sharded else 1
    copies = 2 if setup.devices > 1 and not setup.sharded else 1  # DDP's buckets
    return Memory(
        weights=size * recording.parameters / shards,
        gradients=size * recording.trainable * copies / shards,
        moments=size * recording.trainable * moments_of(config.optim.opt) / shards,
        ema=size * recording.parameters / shards if config.ema.decay is not None else 0.0,
        activations=activations(recording, setup),
        gathered=4 * size * recording.largest_block if shards > 1 else 0.0,
    )


def activations(recording: Recording, setup: Setup) -> float:
    """Bytes kept for the backward of one micro-batch."""
    if not setup.checkpointing:
        return recording.activations.at(setup.images)
    parts = (recording.outside, recording.block_inputs, recording.block)
    return sum(part.at(setup.images) for part in parts)


def moments_of(optimizer: str) -> int:
    """Numbers that an optimizer keeps for each that it trains."""
    one = ("sgd", "lars", "lion", "momentum")
    return 1 if any(name in optimizer for name in one) else 2
