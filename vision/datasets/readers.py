"""Readers: `reader[i]` is (encoded file or PIL image, class). `open_reader` picks one by name."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from PIL import Image
from timm.data import create_dataset
from timm.data.readers.reader_image_folder import ReaderImageFolder

from vision.config.schema import DataConfig
from vision.datasets.digits import DigitsReader
from vision.datasets.latents import LatentReader
from vision.datasets.splits import canonical, find_folder, find_shards, find_tar, no_split, synonyms
from vision.datasets.tars import ClassTarReader, WebDatasetReader


class Reader(Protocol):
    """Images by index. Does not decode, or at most what the library behind it insists on."""

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
    if kind == "tar":
        return ClassTarReader(find_tar(config, split), split)
    if kind == "wds":
        return WebDatasetReader(find_shards(config, split))
    if kind == "latents":
        return LatentReader(config, split)
    if kind == "hfds":
        return HuggingFaceReader(config, name, split)
    return TorchvisionReader(config, name, split)


class FolderReader:
    """One sub-folder per class (timm's ReaderImageFolder); classes in natural order of names."""

    def __init__(self, folder: Path) -> None:
        try:
            self._reader = ReaderImageFolder(str(folder))
        except RuntimeError as error:
            raise FileNotFoundError(f"data.root: {error}; expected CLASS/IMAGE in it") from error
        classes = self._reader.class_to_idx
        if "" in classes:
            raise ValueError(
                f"data.root: images lie directly in {folder} and so have no class; expected them "
                "in one sub-folder per class"
            )
        self.class_names: list[str] | None = sorted(classes, key=lambda name: classes[name])
        self.labels: list[int] | None = [label for _, label in self._reader.samples]

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        """(open file, class)."""
        return self._reader[index]

    def filename(self, index: int) -> str:
        """Absolute path."""
        return self._reader.filename(index, absolute=True)


class HuggingFaceReader:
    """A Hugging Face data set with an image and a class column (timm's ReaderHfds).

    `name` is a data set of the hub or a local folder (of parquet files, or an imagefolder).
    """

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        # imports `datasets`, which is an optional package
        from timm.data.readers.reader_hfds import ReaderHfds

        if name.startswith("~"):
            name = str(Path(name).expanduser())
        found, features = _load_hugging_face(config, name, split)
        image = _column(features, "image", "Image", config.name)
        label = _column(features, "label", "ClassLabel", config.name)
        self._name = f"{config.name}[{found}]"
        self._reader = ReaderHfds(
            name, root=config.root, split=found, input_key=image, target_key=label
        )
        self.class_names: list[str] | None = list(self._reader.class_to_idx) or None
        labels = np.asarray(self._reader.dataset.with_format("numpy")[label][:])
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"data.name = {config.name!r}: column {label!r} holds {labels.dtype}, expected "
                "class numbers or ClassLabel; convert it with class_encode_column()"
            )
        self.labels: list[int] | None = labels.tolist()

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        """(encoded image, class)."""
        image, label = self._reader[index]
        return image, int(label)

    def filename(self, index: int) -> str:
        """Data set, row, and the path that the data set keeps for it, if any."""
        path = self._reader.filename(index)
        return f"{self._name} row {index}" + (f" ({path})" if path else "")


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


def _load_hugging_face(config: DataConfig, name: str, split: str) -> tuple[str, dict[str, Any]]:
    import datasets

    reason = ""
    for candidate in synonyms(split):
        try:
            data = datasets.load_dataset(name, split=candidate, cache_dir=config.root)
            return candidate, dict(data.features)
        except ValueError as error:
            reason = " ".join(str(error).split())
            if "nknown split" not in reason:
                break
        except (OSError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split())
            break
    if "nknown split" in reason:
        listed = reason.rpartition("one of ")[2].strip(" .[]").replace("'", "")
        raise FileNotFoundError(no_split(config, split, [listed], "a split of the data set"))
    raise FileNotFoundError(
        f"data.name = {config.name!r}: Hugging Face datasets cannot load {name!r} ({reason}); "
        "expected hfds/ORGANISATION/NAME of the hub, or hfds/FOLDER with parquet files or images"
    )


def _column(features: dict[str, Any], usual: str, kind: str, name: str) -> str:
    if usual in features:
        return usual
    fitting = [key for key, feature in features.items() if type(feature).__name__ == kind]
    if len(fitting) == 1:
        return fitting[0]
    raise ValueError(
        f"data.name = {name!r}: expected a column {usual!r}, or just one of type {kind}; it has "
        f"{', '.join(f'{key}: {type(f).__name__}' for key, f in features.items())}; rename one"
    )
