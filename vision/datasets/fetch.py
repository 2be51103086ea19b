"""Reading ahead, in order, in the process that trains; decoding in the loader's workers.

For readers that are fast only in their own order. Workers would each read all of it; so they are
sent the bytes of the images, and what is trained does not depend on how many of them there are.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, NamedTuple, TypeVar

from PIL import Image
from torch.utils.data import Sampler

from vision.datasets.dataset import ImageDataset, Sample
from vision.datasets.readers import Reader
from vision.datasets.sampler import Draw

_READ_AHEAD = 2  # batches, beside those that wait for a worker

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Fetched(NamedTuple):
    """A draw, and what the reader has for it."""

    draw: Draw
    file: bytes  # encoded image
    target: int


class FetchingSampler(Sampler[list[Fetched]]):
    """The batches of `batches`, lists of `Draw`, read from `reader` by a thread a little ahead."""

    def __init__(self, batches: Sampler[Any], reader: Reader) -> None:
        self.batches = batches
        self.reader = reader

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[Fetched]]:
        return ahead(self._fetch, self.batches, _READ_AHEAD)

    def _fetch(self, batch: list[Draw]) -> list[Fetched]:
        return [_fetch(self.reader, draw) for draw in batch]


class FetchedDataset(ImageDataset):
    """Decoded, augmented images of what a `FetchingSampler` has read."""

    def __getitems__(self, fetched: Sequence[Fetched]) -> list[Sample]:  # type: ignore[override]
        """A batch."""
        self._held = {item.draw.index: item for item in fetched}
        return super().__getitems__([item.draw for item in fetched])

    def open(self, index: int) -> tuple[IO[bytes] | Image.Image, int]:
        """(encoded image, class); another than those of the batch takes the place of a broken."""
        item = self._held.get(index) or _fetch(self.reader, Draw(0, index))
        return io.BytesIO(item.file), item.target


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
    finally:  # also when nobody wants the rest
        pool.shutdown(wait=True, cancel_futures=True)


def _fetch(reader: Reader, draw: Draw) -> Fetched:
    file, target = reader[draw.index]
    assert not isinstance(file, Image.Image), "readers with shard_sizes give encoded images"
    with file:
        return Fetched(draw, file.read(), target)
