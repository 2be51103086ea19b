"""`open_reader` picks the reader of a data set by name; readers of folders and of torchvision."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from timm.data import create_dataset
from timm.utils.misc import natural_key

from vision.config.schema import DataConfig
from vision.datasets.check import IN_PACKAGES
from vision.datasets.digits import DigitsReader
from vision.datasets.hugging_face import HuggingFaceReader
from vision.datasets.hugging_face_stream import HuggingFaceStream
from vision.datasets.image_files import ENDINGS, ending_of, is_hidden, list_images, load
from vision.datasets.latents import LatentReader
from vision.datasets.mnist5k import MNIST5kReader
from vision.datasets.reader import Reader
from vision.datasets.splits import canonical, find_folder, find_shards
from vision.datasets.webdataset import WebDatasetReader
from vision.notices import notice


def open_reader(config: DataConfig, split: str) -> Reader:
    """Open one split of the data set that `config` names; call `check_data(config)` before.

    Raises ValueError or FileNotFoundError with key, value, what was expected and a fix.
    """
    kind, _, name = config.name.partition("/")
    if kind in IN_PACKAGES:
        return _open_from_package(kind, split, config.split_seed or 0)
    if kind == "folder" or name == "image_folder":
        return FolderReader(find_folder(config, split), as_torchvision=kind == "torch")
    if kind == "wds":
        return WebDatasetReader(find_shards(config, split))
    if kind == "latents":
        return LatentReader(config, split)
    if kind == "hfds":
        return HuggingFaceReader(config, name, split)
    if kind == "hfids":
        return HuggingFaceStream(config, name, split)
    return TorchvisionReader(config, name, split)


def _open_from_package(name: str, split: str, split_seed: int) -> Reader:
    return {"digits": DigitsReader, "mnist5k": MNIST5kReader}[name](split, split_seed)


class FolderReader(Reader):
    """One sub-folder per class, named by the folder that holds an image.

    Classes are in natural order of their names; `as_torchvision`: by character, and named by the
    first folder in deeper trees.
    """

    def __init__(self, folder: Path, as_torchvision: bool = False) -> None:
        found = list_images(folder)
        passed = found.passed_over()
        if not found.files:
            raise FileNotFoundError(
                f"data.root: Found 0 images in {folder}; expected CLASS/IMAGE in it, with an "
                f"ending of docs/data.md{f' (passed over: {passed})' if passed else ''}"
            )
        if passed:
            notice(f"{folder}: passed over {passed}")
        self._files = found.files
        if as_torchvision:
            self._files.sort(
                key=lambda file: (Path(file).relative_to(folder).parts[0], *os.path.split(file))
            )
        parts = [Path(file).relative_to(folder).parts[:-1] for file in found.files]
        if () in parts:
            raise ValueError(
                f"data.root: images lie directly in {folder} and so have no class; expected them "
                "in one sub-folder per class"
            )
        names = [folders[0 if as_torchvision else -1] for folders in parts]
        self.class_names = sorted(set(names), key=str if as_torchvision else natural_key)
        numbers = {name: number for number, name in enumerate(self.class_names)}
        self.labels: list[int] = [numbers[name] for name in names]

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        """(open file, class)."""
        return open(self._files[index], "rb"), self.labels[index]

    def filename(self, index: int) -> str:
        """Path, absolute where `data.root` is."""
        return self._files[index]


def _is_image(path: str) -> bool:
    name = Path(path).name
    return ending_of(name) in ENDINGS and not is_hidden(name)


# how data sets of files open them; the others have their pixels in arrays
_LOADERS: dict[str, dict[str, Any]] = {
    "imagenet": {"loader": load, "is_valid_file": _is_image},
    "places365": {"loader": load},
    "inaturalist": {"loader": load},
}


class TorchvisionReader(Reader):
    """A torchvision data set, made by timm.data.create_dataset, which opens its images itself."""

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        root = str(Path(str(config.root)).expanduser())
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
            f"torch/{name}", root=root, split=split, download=download, **_LOADERS.get(name, {})
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
