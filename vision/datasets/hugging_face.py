"""Hugging Face data sets: reading a whole one, and what that shares with streaming one."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from vision.config.schema import DataConfig
from vision.datasets.reader import Reader
from vision.datasets.splits import no_split, synonyms

T = TypeVar("T")


class HuggingFaceReader(Reader):
    """A Hugging Face data set with an image and a class column, prepared in `data.root`.

    `name` is a data set of the hub or a local folder (of parquet files, or an imagefolder).
    """

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        import datasets  # optional package

        name = expand(name)
        found, data = open_split(
            config,
            name,
            split,
            lambda found: datasets.load_dataset(name, split=found, cache_dir=config.root),
        )
        self._image, self._label = columns(config, data)
        self._name = f"{config.name}[{found}]"
        self.class_names = class_names(data, self._label)
        stored = data.with_format("numpy")[self._label][:]
        self.labels = class_numbers(config, self._label, stored)
        self._data = data.cast_column(self._image, datasets.Image(decode=False))

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[IO[bytes], int]:
        """(encoded image, class)."""
        row = self._data[index]
        image = row[self._image]
        file = io.BytesIO(image["bytes"]) if image["bytes"] else open(image["path"], "rb")  # noqa: SIM115
        return file, int(row[self._label])

    def filename(self, index: int) -> str:
        """Data set, row, and the path that the data set keeps for it, if any."""
        path = self._data[index][self._image]["path"]
        return f"{self._name} row {index}" + (f" ({path})" if path else "")


def expand(name: str) -> str:
    """`name` with the home folder for a leading ~."""
    return str(Path(name).expanduser()) if name.startswith("~") else name


def open_split(
    config: DataConfig, name: str, split: str, load: Callable[[str], T]
) -> tuple[str, T]:
    """(the name that `split` has in data set `name`, what `load` returned for that name).

    Raises FileNotFoundError where there is no such data set or split.
    """
    import datasets

    try:
        splits = datasets.get_dataset_split_names(name, cache_dir=config.root)
        # "train[:10%]" and "train+test" are names that the library understands
        composed = [split] if set(split) & set("[+") else []
        for found in [*(same for same in synonyms(split) if same in splits), *composed]:
            return found, load(found)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        kind, reason = config.name.partition("/")[0], " ".join(str(error).split())
        raise FileNotFoundError(
            f"data.name = {config.name!r}: Hugging Face datasets cannot load {name!r} ({reason}); "
            f"expected {kind}/ORGANISATION/NAME of the hub, or {kind}/FOLDER with parquet files or "
            "images"
        ) from error
    raise FileNotFoundError(no_split(config, split, splits, "a split of the data set"))


def columns(config: DataConfig, data: Any) -> tuple[str, str]:
    """Names of the image and of the class column. Raises ValueError where that is not clear."""
    features = dict(data.features or {})
    image = _column(config, features, ("image",), "Image")
    return image, _column(config, features, ("label", "cls"), "ClassLabel")


def class_names(data: Any, label: str) -> list[str] | None:
    """The names of the classes, where column `label` is a ClassLabel."""
    return list(getattr(data.features[label], "names", None) or []) or None


def class_numbers(config: DataConfig, label: str, stored: Any) -> list[int]:
    """The class column `label` as integers. Raises ValueError where it holds something else."""
    labels = np.asarray(stored)
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"data.name = {config.name!r}: column {label!r} holds {labels.dtype}, expected "
            "class numbers or ClassLabel; convert it with class_encode_column()"
        )
    return labels.tolist()


def _column(config: DataConfig, features: dict[str, Any], usual: tuple[str, ...], kind: str) -> str:
    for key in usual:
        if key in features:
            return key
    fitting = [key for key, feature in features.items() if type(feature).__name__ == kind]
    if len(fitting) == 1:
        return fitting[0]
    raise ValueError(
        f"data.name = {config.name!r}: expected a column {usual[0]!r}, or just one of type {kind}; "
        f"it has {', '.join(f'{key}: {type(f).__name__}' for key, f in features.items())}; "
        "rename one"
    )
