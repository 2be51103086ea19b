"""Sums over the batch of all processes, for norms that take statistics over the batch.

Collectives run only in training, where all ranks call all norms in the same order, so that one
process with a batch and several with parts of it agree.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of `x` over all processes, with gradients; `x` itself where there is one process."""
    return all_reduce(x.contiguous()) if _several() else x


def gather_over_processes(x: Tensor) -> Tensor:
    """`[B, ...]` of all processes, in the order of their ranks, with gradients.

    This is the order of the samples in the batch: each rank trains a contiguous part of it.
    """
    return torch.cat(all_gather(x.contiguous())) if _several() else x


def part_of_this_process(x: Tensor) -> Tensor:
    """Of `[B, ...]` as `gather_over_processes` gives it, the samples that this process has."""
    return x.chunk(dist.get_world_size())[dist.get_rank()] if _several() else x


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all other axes and all processes.

    Args:
        x: `[..., D]`, float32 or float64.

    Returns:
        Mean `[D]`, variance `[D]`, and the number of values behind each, `[]`; x's dtype.
    """
    rows = x.reshape(-1, x.shape[-1])
    count = sum_over_processes(rows.new_tensor(float(len(rows))))
    mean = sum_over_processes(rows.sum(0)) / count
    # a second pass: the mean of squares less the square of the mean cancels
    variance = sum_over_processes((rows - mean).square().sum(0)) / count
    return mean, variance, count


def batch_mean(x: Tensor) -> Tensor:
    """Mean `[D]` of each channel of `x`, `[..., D]`, over all other axes and all processes."""
    rows = x.reshape(-1, x.shape[-1])
    return sum_over_processes(rows.sum(0)) / sum_over_processes(rows.new_tensor(float(len(rows))))


@torch.no_grad()
def move_average(average: Tensor, value: Tensor, weight: float) -> None:
    """average ← (1 − weight)·average + weight·value, in place."""
    average.lerp_(value.to(average.dtype), weight)


def describe_statistics(model: nn.Module, images: int, parts: int) -> str | None:
    """What its norms take statistics over, where that is not a whole batch of `images`.

    Args:
        model: Its norms say by `running` that they take statistics over the batch.
        images: In one optimizer step, of all processes.
        parts: Micro-batches of it, over which gradients are accumulated.
    """
    count = sum(bool(getattr(module, "running", False)) for module in model.modules())
    if count == 0 or parts == 1:
        return None
    return (
        f"{count} norms take statistics over {images // parts} images, as the batch of {images} is "
        f"accumulated in {parts} parts"
    )


def check_fraction(name: str, value: float, *, zero: bool = False) -> float:
    """Returns `value`, that of option `name`, if it is a number above 0 (or 0) and at most 1.

    Raises:
        ValueError: it is not.
    """
    least = "of at least 0" if zero else "above 0"
    if isinstance(value, (str, bool)) or not (0 < value <= 1 or (zero and value == 0)):
        raise ValueError(f"{name} must be a number {least} and at most 1, got {value!r}")
    return value


def process_count() -> int:
    """How often larger gradients are than in one process, where the loss of a process is the mean
    over its part of the batch and gradients of parameters are averaged, as DDP and FSDP do."""
    return dist.get_world_size() if _several() else 1


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
