"""Hugging Face data sets: what loading them as a whole and streaming them have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from vision.config.schema import DataConfig
from vision.datasets.splits import no_split, synonyms

T = TypeVar("T")


class HuggingFaceReader:
    """A Hugging Face data set with an image and a class column (timm's ReaderHfds).

    `name` is a data set of the hub or a local folder (of parquet files, or an imagefolder).
    """

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        # `datasets` is an optional package
        import datasets
        from timm.data.readers.reader_hfds import ReaderHfds

        name = expand(name)

        def open_split(candidate: str) -> Any:
            return datasets.load_dataset(name, split=candidate, cache_dir=config.root)

        found, data = find_split(config, name, split, open_split)
        image, label = columns(config, data)
        self._name = f"{config.name}[{found}]"
        self._reader = ReaderHfds(
            name, root=config.root, split=found, input_key=image, target_key=label
        )
        self.class_names: list[str] | None = list(self._reader.class_to_idx) or None
        stored = self._reader.dataset.with_format("numpy")[label][:]
        self.labels: list[int] | None = class_numbers(config, label, stored)

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


def expand(name: str) -> str:
    """`name` with the home folder for a leading ~."""
    return str(Path(name).expanduser()) if name.startswith("~") else name


def find_split(
    config: DataConfig, name: str, split: str, open_split: Callable[[str], T]
) -> tuple[str, T]:
    """(the name that `split` has in data set `name`, what `open_split` returned for it).

    Raises FileNotFoundError where there is no such data set or split.
    """
    import datasets

    reason, splits = "", None
    for candidate in synonyms(split):
        try:
            return candidate, open_split(candidate)
        except ValueError as error:
            reason = " ".join(str(error).split())
            if "nknown split" not in reason and "Bad split" not in reason:
                break
            splits = reason.rpartition("one of " if "one of " in reason else "splits: ")[2]
        except (OSError, datasets.exceptions.DatasetsError) as error:
            reason = " ".join(str(error).split())
            break
    if splits is not None:
        listed = splits.strip(" .[]").replace("'", "")
        raise FileNotFoundError(no_split(config, split, [listed], "a split of the data set"))
    kind = config.name.partition("/")[0]
    raise FileNotFoundError(
        f"data.name = {config.name!r}: Hugging Face datasets cannot load {name!r} ({reason}); "
        f"expected {kind}/ORGANISATION/NAME of the hub, or {kind}/FOLDER with parquet files or "
        "images"
    )


def columns(config: DataConfig, data: Any) -> tuple[str, str]:
    """Names of the image and of the class column. Raises ValueError where that is not clear."""
    features = dict(data.features or {})
    image = _column(config, features, ("image",), "Image")
    return image, _column(config, features, ("label", "cls"), "ClassLabel")


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
