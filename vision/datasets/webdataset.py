"""WebDataset shards: tar files that hold KEY.jpg (or another image) and KEY.cls for each image."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision.datasets.image_files import ENDINGS, Listing, is_hidden
from vision.datasets.index_cache import Arrays, cached_index
from vision.datasets.reader import Reader
from vision.notices import notice

_LABEL = ".cls"


class WebDatasetReader(Reader):
    """The images of local, uncompressed shards, by index.

    Shards are indexed once, by reading their headers and labels; the index of a large set is kept
    for the next start, while names, sizes and modification times of the shards stay the same.
    Images keep the order of shard names and of the members in each. (timm's and webdataset's
    readers stream: what they yield depends on the number of workers.)

    A file `classes.txt` beside the shards, one name per line, names the classes.
    Raises ValueError or FileNotFoundError that names the shard and a fix.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = [str(shard) for shard in shards]
        states = [shard.stat() for shard in shards]
        versions = [[state.st_size, state.st_mtime_ns] for state in states]
        # arrays: an object per image would take ten times the memory, once more in each worker
        self._index = cached_index(
            ["wds 2", sorted(ENDINGS), [str(shard.resolve()) for shard in shards], versions],
            lambda: _index_shards(shards),
        )
        passed = bytes(self._index.pop("passed")[0]).decode("utf-8", "surrogateescape")
        self.labels: list[int] = self._index["label"].tolist()
        if not self.labels:
            raise FileNotFoundError(
                f"data.root: no samples in {len(shards)} shards such as {shards[0]}; expected "
                f"KEY.jpg and KEY{_LABEL} for each image"
                f"{f' (passed over: {passed})' if passed else ''}"
            )
        if passed:
            notice(f"{shards[0].parent}: passed over {passed} in {len(shards)} shards")
        names = [shards[0].parent / "classes.txt", shards[0].parent.parent / "classes.txt"]
        found = [path.read_text("utf-8").splitlines() for path in names if path.is_file()]
        self.class_names = found[0] if found else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        """(encoded image, class); too few bytes where the shard has been cut off since."""
        row = {key: values[index] for key, values in self._index.items()}
        # opened each time: an open file would share its position with forked workers
        with open(self.shards[row["tar"]], "rb", buffering=0) as file:
            data = os.pread(file.fileno(), int(row["size"]), int(row["offset"]))
        return io.BytesIO(data), int(row["label"])

    def filename(self, index: int) -> str:
        """SHARD:MEMBER; the member's name is for messages and never used as a path."""
        name = bytes(self._index["name"][index]).decode("utf-8", "surrogateescape")
        return f"{self.shards[self._index['tar'][index]]}:{name}"


def _index_shards(shards: Sequence[Path]) -> Arrays:
    """`tar` (which shard), `name` (UTF-8), `offset`, `size` and `label` of each image, all [N].

    `passed` [1] says what was passed over.
    """
    passed = Listing()
    parts = [_arrays(number, _index_shard(shard, passed)) for number, shard in enumerate(shards)]
    text = passed.passed_over().encode("utf-8", "surrogateescape")
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return {**arrays, "passed": np.array([text], np.bytes_)}


def _arrays(number: int, rows: Sequence[tuple[str, int, int, int]]) -> Arrays:
    names = [name.encode("utf-8", "surrogateescape") for name, *_ in rows]
    numbers = np.array([row[1:] for row in rows], np.int64).reshape(-1, 3)
    return {
        "tar": np.full(len(rows), number, np.int64),
        "name": np.array(names, np.bytes_),
        **dict(zip(("offset", "size", "label"), numbers.T, strict=True)),
    }


def _index_shard(shard: Path, passed: Listing) -> list[tuple[str, int, int, int]]:
    """(name, offset, size, label) of each image; the other members are counted in `passed`."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                folder, slash, base = info.name.rpartition("/")
                stem, dot, extension = base.partition(".")
                key, extension = f"{folder}{slash}{stem}", (dot + extension).lower()
                if is_hidden(info.name):
                    passed.hidden += 1
                elif info.isfile() and extension in ENDINGS:
                    images[key] = info
                elif info.isfile() and extension == _LABEL:
                    labels[key] = _parse_label(shard, info.name, tar.extractfile(info))
                elif not info.isdir():
                    passed.passed[extension if info.isfile() else "links and devices"] += 1
            _check_end(tar)
    except tarfile.TarError as error:
        raise ValueError(
            f"data.root: {shard} is not an uncompressed, whole tar file ({error}); fetch or write "
            "it again"
        ) from error
    missing = next((key for key in images if key not in labels), None)
    if missing is not None:
        raise ValueError(
            f"data.root: {shard} has {images[missing].name} but no {missing}{_LABEL}; expected a "
            "label file for each image"
        )
    return [(info.name, info.offset_data, info.size, labels[key]) for key, info in images.items()]


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless a block of zeros follows the last member, as in any whole tar.

    tarfile takes the end of a file, or a damaged header, for the end of the archive.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end mark at byte {tar.offset}: cut short or damaged")


def _parse_label(shard: Path, name: str, file: Any) -> int:
    text = file.read(64)  # whatever its size
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"data.root: {shard}:{name} holds {text[:20]!r}; expected a class number in decimal"
        ) from None
