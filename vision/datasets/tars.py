"""Random access to images in tar files: class folders (timm's tar reader) and WebDataset shards."""

from __future__ import annotations

import io
import os
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from timm.utils.misc import natural_key

from vision.datasets.index_cache import Arrays, cached_index
from vision.datasets.splits import synonyms

_WDS_IMAGES = ("jpg", "jpeg", "png", "webp", "ppm", "bmp")
_WDS_LABEL = "cls"
_OPEN_FILES = 64  # far below the usual limit of 1024 per process


class Member(NamedTuple):
    """The bytes of one file inside a tar: where they are, and the name for messages."""

    tar: str
    name: str
    offset: int
    size: int


class TarFiles:
    """Reads members by offset. Keeps few files open; safe with fork, threads and pickle."""

    def __init__(self) -> None:
        self._files: OrderedDict[str, Any] = OrderedDict()

    def read(self, member: Member) -> io.BytesIO:
        """The content of `member`, shorter than its size if the tar is cut off."""
        file = self._files.pop(member.tar, None)
        if file is None:
            file = open(member.tar, "rb", buffering=0)  # noqa: SIM115 (kept open)
        self._files[member.tar] = file  # now the last to be closed
        while len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)  # closes when the last read of it ends
        # pread names its position: forked workers share the one that seek() would move
        return io.BytesIO(os.pread(file.fileno(), member.size, member.offset))

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": OrderedDict()}


class _TarReader:
    """What both kinds share once their members and labels are known.

    `index` has arrays `tar` [N] (which of `tars`), `name` [N] (UTF-8), `offset`, `size` and `label`
    [N] int64. An object per image would take ten times the memory, in each worker once more.
    """

    class_names: list[str] | None = None

    def __init__(self, tars: Sequence[str], index: Arrays) -> None:
        self.tars = list(tars)
        self.labels: list[int] = index["label"].tolist()
        self._index = index
        self._files = TarFiles()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        """(encoded image, class)."""
        return self._files.read(self._member(index)), self.labels[index]

    def filename(self, index: int) -> str:
        """tar file and member."""
        member = self._member(index)
        return f"{member.tar}:{member.name}"

    def _member(self, index: int) -> Member:
        row = {key: values[index] for key, values in self._index.items()}
        name = bytes(row["name"]).decode("utf-8", "surrogateescape")
        return Member(self.tars[row["tar"]], name, int(row["offset"]), int(row["size"]))


def _columns(tars: Sequence[str], members: Sequence[tuple[Member, int]]) -> Arrays:
    """Members and their labels as the arrays of `_TarReader`."""
    number = {tar: i for i, tar in enumerate(tars)}
    names = [member.name.encode("utf-8", "surrogateescape") for member, _ in members]
    return {
        "tar": np.array([number[member.tar] for member, _ in members], np.int64),
        "name": np.array(names, np.bytes_),
        "offset": np.array([member.offset for member, _ in members], np.int64),
        "size": np.array([member.size for member, _ in members], np.int64),
        "label": np.array([label for _, label in members], np.int64),
    }


class ClassTarReader(_TarReader):
    """Images in class folders inside a tar, or in a folder of one tar per class.

    timm's ReaderImageInTar finds images and classes. Reading is ours, because timm's open files
    would share a position between forked workers, and so is the order, because timm leaves
    images of equal name in the order in which the file system lists their tars.
    """

    def __init__(self, path: Path, split: str) -> None:
        try:
            # the cache is a pickle beside the data that nobody renews when the tar changes
            found = ReaderImageInTar(str(path), cache_tarinfo=False)
        except (AssertionError, ValueError, tarfile.TarError) as error:
            raise FileNotFoundError(
                f"data.root: no images to be read in {path} ({error}); expected a tar with "
                "CLASS/IMAGE inside, or a folder of CLASS.tar"
            ) from error
        entries = []
        for (info, parent, child), label in zip(found.samples, found.targets, strict=True):
            tar = str(path / parent) if parent else str(path)
            base, prefix = (child.offset_data, f"{child.name}/") if child is not None else (0, "")
            member = Member(tar, prefix + info.name, base + info.offset_data, info.size)
            entries.append((member, int(label)))
        names = [found.class_idx_to_name[i] for i in range(len(found.class_idx_to_name))]
        # the split is inside the tar where one tar holds all: train/CLASS/IMAGE
        words = set(synonyms(split))
        inside = [e for e in entries if words & set(Path(e[0].name).parts[:-2])]
        if inside:
            entries = inside
            used = sorted({label for _, label in entries})
            names = [names[i] for i in used]
            renumber = {label: i for i, label in enumerate(used)}
            entries = [(member, renumber[label]) for member, label in entries]
        elif path.is_file() and path.stem not in words:
            raise FileNotFoundError(
                f"data.root = {str(path)!r}: one tar without a folder {split!r} inside (split "
                f"{split!r}); expected {split}/CLASS/IMAGE in it, or a folder with {split}.tar"
            )
        entries.sort(key=lambda e: (natural_key(e[0].tar), natural_key(e[0].name)))
        tars = list(dict.fromkeys(member.tar for member, _ in entries))
        super().__init__(tars, _columns(tars, entries))
        self.class_names = names


class WebDatasetReader(_TarReader):
    """Local WebDataset shards with KEY.jpg (png, webp, ...) and KEY.cls for each image.

    Shards are indexed once, by reading their headers and labels; the index of a large set is kept
    for the next start, while names, sizes and times of change of the shards stay the same. Samples
    keep the order of shard names and of the members in each. timm's reader streams, and what it
    yields depends on the number of workers.

    A file `classes.txt` beside the shards, one name per line, names the classes.
    """

    def __init__(self, shards: list[Path]) -> None:
        tars = [str(shard) for shard in shards]
        states = [shard.stat() for shard in shards]
        versions = [[state.st_size, state.st_mtime_ns] for state in states]
        index = cached_index(
            ["wds", [str(shard.resolve()) for shard in shards], versions],
            lambda: _join([_columns(tars, _index_shard(shard)) for shard in shards]),
        )
        if not len(index["label"]):
            raise FileNotFoundError(
                f"data.root: no samples in {len(shards)} shards such as {shards[0]}; expected "
                f"KEY.{_WDS_IMAGES[0]} and KEY.{_WDS_LABEL} for each image"
            )
        super().__init__(tars, index)
        for folder in (shards[0].parent, shards[0].parent.parent):
            if (folder / "classes.txt").is_file():
                self.class_names = (folder / "classes.txt").read_text("utf-8").splitlines()
                break


def _join(parts: Sequence[Arrays]) -> Arrays:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _index_shard(shard: Path) -> list[tuple[Member, int]]:
    images: dict[str, Member] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                folder, _, base = info.name.rpartition("/")
                stem, _, kind = base.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if not info.isfile():
                    continue
                if kind.lower() in _WDS_IMAGES:
                    images[key] = Member(str(shard), info.name, info.offset_data, info.size)
                elif kind.lower() == _WDS_LABEL:
                    labels[key] = _parse_label(shard, info.name, tar.extractfile(info))
            _check_end(tar)
    except tarfile.TarError as error:
        raise ValueError(
            f"data.root: {shard} is not an uncompressed, whole tar file ({error}); fetch or write "
            "it again"
        ) from error
    missing = next((key for key in images if key not in labels), None)
    if missing is not None:
        raise ValueError(
            f"data.root: {shard} has {images[missing].name} but no {missing}.{_WDS_LABEL}; "
            "expected a label file for each image"
        )
    return [(image, labels[key]) for key, image in images.items()]


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise ReadError unless a block of zeros follows the last member, as a tar has to end.

    tarfile takes the end of a file, or a damaged header, for the end of the archive.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no end mark at byte {tar.offset}: cut short or damaged")


def _parse_label(shard: Path, name: str, file: Any) -> int:
    text = file.read()
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"data.root: {shard}:{name} holds {text[:20]!r}; expected a class number in decimal"
        ) from None
