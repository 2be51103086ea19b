"""`open_reader` picks the reader of a data set by name; readers of folders and of torchvision."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from timm.data import create_dataset

from vision.config.schema import DataConfig
from vision.datasets.digits import DigitsReader
from vision.datasets.hugging_face import HuggingFaceReader
from vision.datasets.hugging_face_stream import HuggingFaceStream
from vision.datasets.image_files import list_images
from vision.datasets.latents import LatentReader
from vision.datasets.reader import Reader
from vision.datasets.splits import canonical, find_folder, find_shards
from vision.datasets.webdataset import WebDatasetReader


def open_reader(config: DataConfig, split: str) -> Reader:
    """Open one split of the data set that `config` names; call `check_data(config)` before.

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


class FolderReader(Reader):
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
        self.class_names = sorted(numbers, key=lambda name: numbers[name])
        self.labels = [label for _, label in self._samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        """(open file, class)."""
        path, label = self._samples[index]
        return open(path, "rb"), label

    def filename(self, index: int) -> str:
        """Path, absolute where `data.root` is."""
        return self._samples[index][0]


class TorchvisionReader(Reader):
    """A torchvision data set, made by timm.data.create_dataset; it decodes its images itself."""

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        root = str(Path(str(config.root)).expanduser())
        if name == "image_folder":
            # timm would take the root itself, with the splits as classes, if it finds none
            root = str(find_folder(config, split))
        self._name = f"{config.name}[{split}]"
        self._dataset = _create_torchvision(config, name, root, canonical(split))
        classes = getattr(self._dataset, "classes", None) or []
        # ImageNet has a tuple of synonyms for each class
        self.class_names = [name if isinstance(name, str) else name[0] for name in classes] or None
        labels = getattr(self._dataset, "targets", None)
        if labels is not None and np.ndim(labels) == 1:
            self.labels = np.asarray(labels).tolist()
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
        fixes = {
            "imagenet": "put ILSVRC2012_devkit_t12.tar.gz and the image archives there "
            "(data/README.md)",
            "image_folder": "expected one sub-folder of images per class",
        }
        download = (
            "the download failed; see data/README.md for how to get the files by hand"
            if config.download
            else "set data.download=true to fetch it"
        )
        reason = " ".join(str(error).split())
        raise FileNotFoundError(
            f"data.root = {config.root!r}: no readable {config.name} there for split {split!r} "
            f"({reason}); {fixes.get(name, download)}"
        ) from error
