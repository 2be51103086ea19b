"""Which image goes into which batch: depends on seed and progress, not on workers or ranks."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Sampler

from vision.config.schema import TrainerConfig
from vision.datasets.reader import Item, Reader
from vision.seeding import generator_for

BLOCK = 256  # rows of a shard that are read together and shuffled among themselves
_MAX_LANES = 32  # places in the shards that a batch is drawn from
_READ_AHEAD = 2  # batches, besides those that wait for a worker

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Draw(NamedTuple):
    """One image to load: its index, and the epoch that its augmentation depends on."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    item: Item | None = None  # (encoded image, class) where it was read ahead


@dataclass(eq=False)
class GlobalBatchSampler(Sampler[list[Draw]]):
    """Batches of training draws that continue at the step that the run has reached.

    Each epoch is a permutation of all images, cut into optimizer batches of `batch_size_total`
    (an incomplete last one is left out); each of these into `accumulate` micro-batches, and each
    of these into `world_size` slices. Batch s holds the same images for any such split.

    Iterating yields the rest of the epoch that `batches_done` falls into: nobody has to set an
    epoch.
    """

    length: int
    batch_size_total: int
    _: KW_ONLY
    seed: int
    batches_done: Callable[[], int]  # micro-batches that this rank has trained in the whole run
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    max_steps: int | None = None  # of the whole run: the epoch that reaches them ends there
    shard_sizes: Sequence[int] | None = None  # set: draw nearly in the order of these shards

    def __post_init__(self) -> None:
        if self.batch_size_total % (self.world_size * self.accumulate):
            raise ValueError(
                f"trainer.batch_size_total = {self.batch_size_total}: does not divide into "
                f"{self.world_size} devices x {self.accumulate} accumulated batches; see "
                "split_batch"
            )
        self.steps = steps_per_epoch(self.length, self.batch_size_total)

    def __len__(self) -> int:
        """Micro-batches per rank of the epoch that `batches_done` falls into."""
        full = self.steps * self.accumulate
        if self.max_steps is None:
            return full
        left = self.max_steps * self.accumulate - self.batches_done() // full * full
        return min(left, full) if left > 0 else full

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, offset = divmod(self.batches_done(), self.steps * self.accumulate)
        generator = generator_for(self.seed, "order", epoch)
        if self.shard_sizes is None:
            order = torch.randperm(self.length, generator=generator)  # [length]
        else:
            order = shard_order(self.shard_sizes, self.batch_size_total, generator)
        size = self.batch_size_total // (self.world_size * self.accumulate)
        for batch in range(offset, len(self)):
            # (batch * world_size) counts slices of all ranks from the start of the epoch; as
            # accumulate of these rows make one optimizer batch, its rows are consecutive
            start = (batch * self.world_size + self.rank) * size
            yield [Draw(epoch, index) for index in order[start : start + size].tolist()]


def shard_order(
    shard_sizes: Sequence[int], batch_size_total: int, generator: torch.Generator
) -> Tensor:
    """Indices for full batches, [steps * batch_size_total]: random, but nearly in reading order.

    Shards follow each other in random order, and the rows within each block of `BLOCK` rows are
    shuffled. This sequence is cut into up to 32 lanes of equal length, which are read side by side:
    every batch has the same number of neighbouring rows from each lane, always in the same place.
    So each of several ranks reads whole lanes, if the number of ranks divides that of the lanes.
    """
    ends = list(itertools.accumulate(shard_sizes))
    blocks: list[Tensor] = []
    for shard in torch.randperm(len(ends), generator=generator).tolist():
        rows = torch.arange(ends[shard] - shard_sizes[shard], ends[shard])
        for block in rows.split(BLOCK):
            blocks.append(block[torch.randperm(len(block), generator=generator)])
    steps = ends[-1] // batch_size_total
    lanes = max(n for n in range(1, _MAX_LANES + 1) if batch_size_total % n == 0)
    sequence = torch.cat(blocks)[: steps * batch_size_total]
    return sequence.view(lanes, steps, -1).transpose(0, 1).reshape(-1)


class EvalSampler(Sampler[Draw]):
    """Every index once over all ranks: each rank has a range of them; nothing is padded.

    Ranks may differ by one image, so gather sums from them, not means.
    """

    def __init__(self, length: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices = range(length * rank // world_size, length * (rank + 1) // world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Draw]:
        return (Draw(0, index) for index in self.indices)


@dataclass(eq=False)
class ReadAheadSampler(Sampler[list[Draw]]):
    """The batches of another sampler with their images, which one thread reads a little ahead.

    For readers that are fast only in their own order: every worker would read the whole data set.
    So the training process reads in order, its workers get the encoded images and decode them,
    and batches do not depend on the number of workers.
    """

    batches: Sampler[Any]
    reader: Reader

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Draw]]:
        return ahead(self._read, self.batches, _READ_AHEAD)

    def _read(self, batch: list[Draw]) -> list[Draw]:
        return [draw._replace(item=self.reader[draw.index]) for draw in batch]


def ahead(work: Callable[[_In], _Out], items: Iterable[_In], number: int) -> Iterator[_Out]:
    """`map(work, items)`, with up to `number` results made in advance by one thread."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
    pending: deque[Future[_Out]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > number:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also when the consumer stops early
        pool.shutdown(wait=True, cancel_futures=True)


def steps_per_epoch(length: int, batch_size_total: int) -> int:
    """Full optimizer batches in `length` images. Raises ValueError where there are none."""
    if length < batch_size_total:
        raise ValueError(
            f"trainer.batch_size_total = {batch_size_total}: the train split has only {length} "
            f"images, less than one batch; set trainer.batch_size_total to {length} or less"
        )
    return length // batch_size_total


def training_length(trainer: TrainerConfig, steps_per_epoch: int) -> tuple[int, int]:
    """Optimizer steps of the whole training, and epochs; the last one may be cut short."""
    if trainer.max_steps is not None:
        return trainer.max_steps, math.ceil(trainer.max_steps / steps_per_epoch)
    assert trainer.epochs is not None, "check_trainer comes first"
    return trainer.epochs * steps_per_epoch, trainer.epochs


def split_batch(
    batch_size_total: int,
    batch_size_device: int | None = None,
    world_size: int = 1,
    multiple_of: int = 1,
) -> tuple[int, int]:
    """(micro-batch per device, accumulate): the fewest equal micro-batches that fit in memory.

    batch_size_total = micro-batch * accumulate * world_size, and the micro-batch is at most
    `batch_size_device` and a multiple of `multiple_of` (2 where mixup pairs images).
    Raises ValueError where there is no such split.
    """
    unit = world_size * multiple_of
    if batch_size_total % unit:
        low = max(batch_size_total // unit, 1) * unit
        even = f" in multiples of {multiple_of}" if multiple_of > 1 else ""
        raise ValueError(
            f"trainer.batch_size_total = {batch_size_total}: does not divide over {world_size} "
            f"device(s){even}; nearest: {low} or {low + unit}"
        )
    per_device = batch_size_total // world_size
    limit = per_device if batch_size_device is None else batch_size_device
    for accumulate in range(1, per_device // multiple_of + 1):
        micro, rest = divmod(per_device, accumulate)
        if rest == 0 and micro <= limit and micro % multiple_of == 0:
            return micro, accumulate
    raise ValueError(
        f"trainer.batch_size_device = {batch_size_device}: smaller than the least micro-batch, "
        f"{multiple_of} image(s); set trainer.batch_size_device to {multiple_of} or more"
    )
