"""Readers: `reader[i]` is (encoded file or PIL image, class). `open_reader` picks one by name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image
from timm.data import create_dataset

from vision.config.schema import DataConfig
from vision.datasets.digits import DigitsReader
from vision.datasets.hugging_face import HuggingFaceReader
from vision.datasets.image_files import DECODE_ERRORS, Mode, decode, list_images
from vision.datasets.latents import LatentReader
from vision.datasets.splits import canonical, find_folder, find_shards
from vision.datasets.stream import HuggingFaceStream
from vision.datasets.webdataset import WebDatasetReader
from vision.errors import CorruptImageError


class Reader(Protocol):
    """Images by index. Does not decode, or at most what the library behind it insists on.

    One that has an attribute `shard_sizes` is fast only in the order of those shards.
    """

    @property
    def class_names(self) -> list[str] | None:
        """None: the data set does not say."""
        ...

    @property
    def labels(self) -> list[int] | None:
        """Class of each image; None: only known by reading it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[IO[bytes] | Image.Image, int]:
        """(file to be closed by the caller, or image; class)."""
        ...

    def filename(self, index: int) -> str:
        """The place of the image, for messages."""
        ...


def open_reader(config: DataConfig, split: str) -> Reader:
    """Open one split of the data set that `config` names; `check_data(config)` comes first.

    Raises ValueError or FileNotFoundError with key, value, what was expected and a fix.
    """
    kind, _, name = config.name.partition("/")
    if kind == "digits":
        return DigitsReader(split)
    if kind == "folder":
        return FolderReader(find_folder(config, split))
    if kind == "wds":
        return WebDatasetReader(find_shards(config, split))
    if kind == "latents":
        return LatentReader(config, split)
    if kind == "hfds":
        return HuggingFaceReader(config, name, split)
    if kind == "hfids":
        return HuggingFaceStream(config, name, split)
    return TorchvisionReader(config, name, split)


def read_image(
    reader: Reader, index: int, mode: Mode, item: tuple[Any, int] | None = None
) -> tuple[Image.Image, int]:
    """(decoded image, class) of `reader[index]`, or of `item` where that was read before.

    Raises CorruptImageError with the place of the image.
    """
    try:
        file, label = item or reader[index]
        return decode(file, mode), int(label)
    except DECODE_ERRORS as error:
        raise CorruptImageError.of(reader.filename(index), error) from error


class FolderReader:
    """One sub-folder per class; classes in natural order of their names."""

    def __init__(self, folder: Path) -> None:
        self._samples, numbers = list_images(folder)
        if not self._samples:
            raise FileNotFoundError(
                f"data.root: Found 0 images in {folder}; expected CLASS/IMAGE in it"
            )
        if "" in numbers:
            raise ValueError(
                f"data.root: images lie directly in {folder} and so have no class; expected them "
                "in one sub-folder per class"
            )
        self.class_names: list[str] | None = sorted(numbers, key=lambda name: numbers[name])
        self.labels: list[int] | None = [label for _, label in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        """(open file, class)."""
        path, label = self._samples[index]
        return open(path, "rb"), label

    def filename(self, index: int) -> str:
        """Path, absolute where `data.root` is."""
        return self._samples[index][0]


class TorchvisionReader:
    """A torchvision data set, made by timm.data.create_dataset; it decodes its images itself."""

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        root = str(Path(str(config.root)).expanduser())
        if name == "image_folder":
            # timm would take the root itself, with the splits as classes, if it finds none
            root = str(find_folder(config, split))
        self._name = f"{config.name}[{split}]"
        self._dataset = _create_torchvision(config, name, root, canonical(split))
        classes = getattr(self._dataset, "classes", None)
        # ImageNet has a tuple of synonyms for each
        self.class_names: list[str] | None = (
            [name if isinstance(name, str) else name[0] for name in classes] if classes else None
        )
        labels = getattr(self._dataset, "targets", None)
        flat = labels is not None and np.ndim(labels) == 1
        self.labels: list[int] | None = np.asarray(labels).tolist() if flat else None
        pixels = getattr(self._dataset, "data", None)  # [N, H, W, ...] where all are in memory
        if pixels is not None and np.ndim(pixels) >= 3:
            self.image_size = tuple(pixels.shape[1:3])

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        """(decoded image, class)."""
        image, label = self._dataset[index]
        return image, int(label)

    def filename(self, index: int) -> str:
        """Path where images are files; else data set and index."""
        samples = getattr(self._dataset, "samples", None)
        return str(samples[index][0]) if samples else f"{self._name} image {index}"


def _create_torchvision(config: DataConfig, name: str, root: str, split: str) -> Any:
    def create(download: bool) -> Any:
        return create_dataset(
            f"torch/{name}", root=root, split=split, download=download, search_split=False
        )

    if config.download:
        # some torchvision classes fail where they are told to download what is already there
        with contextlib.suppress(RuntimeError, OSError):
            return create(download=False)
    try:
        return create(download=config.download)
    except (RuntimeError, OSError) as error:
        if name == "imagenet":
            fix = "put ILSVRC2012_devkit_t12.tar.gz and the image archives there (data/README.md)"
        elif name == "image_folder":
            fix = "expected one sub-folder of images per class"
        elif config.download:
            fix = "the download failed; see data/README.md for how to get the files by hand"
        else:
            fix = "set data.download=true to fetch it"
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"data.root = {config.root!r}: no readable {config.name} there for split {split!r} "
            f"({reason}); {fix}"
        ) from error
