"""Hugging Face data sets read as a stream: each shard row by row, without a copy on this disk."""

from __future__ import annotations

import bisect
import io
import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from vision.config.schema import DataConfig
from vision.datasets.hugging_face import (
    class_names,
    class_numbers,
    columns,
    expand,
    open_split,
)
from vision.datasets.index_cache import Arrays, cached_index
from vision.datasets.reader import Reader
from vision.datasets.sampler import BLOCK

_MAX_CURSORS = 64  # places read from at a time; each holds a block and what is read ahead

_Rows = dict[int, tuple[Any, Any]]  # row in the shard -> (image, class)


class _Cursor(NamedTuple):
    """A place in a shard: the rows of one block that are not taken yet, and the blocks after."""

    rows: _Rows
    following: Iterator[_Rows]


class HuggingFaceStream(Reader):
    """The images of `datasets`' streams (`load_dataset(..., streaming=True)`), by index.

    Reading can start anywhere in a shard, but has to pass all rows before that place. So any index
    works, but only rows of one block of `BLOCK` rows, and then of the next block, are fast.
    `GlobalBatchSampler` draws in such an order where it knows the `shard_sizes`.

    The sizes of the shards and the classes are found by reading the class column once.
    Raises ValueError or FileNotFoundError with key, value, what was expected and a fix.
    """

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        name = expand(name)
        found, (builder, data) = open_split(
            config, name, split, lambda found: _open(config, name, found)
        )
        self._image, self._label = columns(config, data)
        self._name = f"{config.name}[{found}]"
        self.class_names = class_names(data, self._label)
        self._data = data.decode(False)
        index = self._index(config, builder, name, found)
        self.labels = index["labels"].tolist()
        self.shard_sizes: list[int] = index["shard_sizes"].tolist()
        self._ends = list(accumulate(self.shard_sizes))
        self._local = threading.local()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        """(encoded image, class)."""
        shard, row = self._place(index)
        image, label = self._take(shard, row)
        if image["bytes"] is None:  # the data set consists of image files
            import fsspec

            with fsspec.open(image["path"], "rb") as file:
                return io.BytesIO(file.read()), int(label)
        return io.BytesIO(image["bytes"]), int(label)

    def filename(self, index: int) -> str:
        """Data set, shard and row."""
        shard, row = self._place(index)
        return f"{self._name} shard {shard} row {row}"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def _place(self, index: int) -> tuple[int, int]:
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - self._ends[shard] + self.shard_sizes[shard]

    def _take(self, shard: int, row: int) -> tuple[Any, Any]:
        # each thread has its own: two loaders of a split must not take each other's rows
        cursors: OrderedDict[tuple[int, int], _Cursor]
        cursors = self._local.__dict__.setdefault("cursors", OrderedDict())
        block = row // BLOCK
        cursor = cursors.pop((shard, block), None)
        if cursor is None or row not in cursor.rows:
            previous = cursors.pop((shard, block - 1), None)
            following = previous.following if previous else self._blocks(shard, block)
            cursor = _Cursor(next(following, {}), following)
        if row not in cursor.rows:
            raise ValueError(
                f"{self._name} shard {shard} has no row {row} any more; it has changed"
            )
        item = cursor.rows.pop(row)
        if cursor.rows or (block + 1) * BLOCK < self.shard_sizes[shard]:
            cursors[shard, block] = cursor
        if len(cursors) > _MAX_CURSORS:
            cursors.popitem(last=False)
        return item

    def _blocks(self, shard: int, first: int) -> Iterator[_Rows]:
        data = self._data.shard(num_shards=len(self.shard_sizes), index=shard)
        start = first * BLOCK
        for batch in (data.skip(start) if start else data).iter(BLOCK):
            rows = zip(batch[self._image], batch[self._label], strict=True)
            yield dict(enumerate(rows, start))
            start += BLOCK

    def _index(self, config: DataConfig, builder: Any, name: str, split: str) -> Arrays:
        """`labels` [N] and `shard_sizes` [shards], both int64."""
        files = (builder.config.data_files or {}).get(split, [])

        def build() -> Arrays:
            data = self._data
            if hasattr(builder.config, "columns"):  # parquet: the images need not be read
                _, data = _open(config, name, split, columns=[self._label])
            labels: list[int] = []
            sizes = []
            for shard in range(data.num_shards):
                where = files[shard] if len(files) == data.num_shards else f"shard {shard}"
                found = self._labels_of(config, data, shard, where)
                labels += found
                sizes.append(len(found))
            return {"labels": np.array(labels, np.int64), "shard_sizes": np.array(sizes, np.int64)}

        version = [list(map(str, entry)) for entry in getattr(files, "origin_metadata", [])]
        key = ["hfids", name, builder.hash, split, self._label, list(files), version]
        index = cached_index(key, build)
        if not len(index["labels"]):
            raise FileNotFoundError(f"data.name = {config.name!r}: split {split!r} has no images")
        return index

    def _labels_of(self, config: DataConfig, data: Any, shard: int, where: str) -> list[int]:
        found: list[int] = []
        try:
            for batch in data.shard(num_shards=data.num_shards, index=shard).iter(10_000):
                found += batch[self._label]
        except (OSError, ValueError, EOFError) as error:  # ValueError: also pyarrow's
            reason = " ".join(str(error).split())
            raise ValueError(
                f"data.name = {config.name!r}: {where} cannot be read to its end ({reason}); "
                "fetch or write it again"
            ) from error
        return class_numbers(config, self._label, found)


def _open(config: DataConfig, name: str, split: str, **options: Any) -> tuple[Any, Any]:
    """(builder, `datasets.IterableDataset`)."""
    import datasets

    builder = datasets.load_dataset_builder(name, cache_dir=config.root, **options)
    return builder, builder.as_streaming_dataset(split=split)
