"""Hugging Face data sets: reading a whole one, and what that shares with streaming one."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from vision.config.schema import DataConfig
from vision.datasets.reader import Reader
from vision.datasets.splits import no_split, synonyms

T = TypeVar("T")
_MOST_UNPACKED = 2**30  # bytes that files may unpack to, however few they have
_MOST_PACKED = 100  # times their size that larger ones may: images are packed in themselves


class HuggingFaceReader(Reader):
    """A Hugging Face data set with an image and a class column, prepared in `data.root`.

    `name` is a data set of the hub or a local folder (of parquet files, or an imagefolder).
    """

    def __init__(self, config: DataConfig, name: str, split: str) -> None:
        import datasets  # optional package

        name = expand(name)
        if Path(name).is_dir():  # of one on the hub, the library itself compares what its card says
            with _explained(config, name):
                builder = datasets.load_dataset_builder(name, cache_dir=config.root)
            check_unpacked_size(config, builder)
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

    with _explained(config, name):
        splits = datasets.get_dataset_split_names(name, cache_dir=config.root)
        # "train[:10%]" and "train+test" are names that the library understands
        composed = [split] if set(split) & set("[+") else []
        for found in [*(same for same in synonyms(split) if same in splits), *composed]:
            return found, load(found)
    raise FileNotFoundError(no_split(config, split, splits, "a split of the data set"))


@contextmanager
def _explained(config: DataConfig, name: str) -> Iterator[None]:
    """Inside, what the library cannot load is a FileNotFoundError that says what is expected."""
    import datasets

    try:
        yield
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        kind, reason = config.name.partition("/")[0], " ".join(str(error).split())
        raise FileNotFoundError(
            f"data.name = {config.name!r}: Hugging Face datasets cannot load {name!r} ({reason}); "
            f"expected {kind}/ORGANISATION/NAME of the hub, or {kind}/FOLDER with parquet files or "
            "images"
        ) from error


def check_unpacked_size(config: DataConfig, builder: Any) -> None:
    """Raise ValueError if the library would unpack parquet files to more than the disk has, or to
    far more than they hold.

    Their footers say how large each column is without its compression. They do not say how often a
    value is repeated that is stored once, so a file made to deceive can still be larger.
    """
    import pyarrow.parquet

    files = [Path(f) for files in (builder.config.data_files or {}).values() for f in files]
    if Path(builder.cache_dir).exists() or any(file.suffix != ".parquet" for file in files):
        return  # unpacked already, or of image files, which stay as they are
    held, unpacked = sum(file.stat().st_size for file in files), 0
    for file in files:
        try:
            footer = pyarrow.parquet.read_metadata(file)
        except (OSError, ValueError):  # the library names it, and what is wrong
            return
        unpacked += sum(footer.row_group(i).total_byte_size for i in range(footer.num_row_groups))
    place = Path(builder.cache_dir)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = (
        f"data.name = {config.name!r}: its {len(files)} parquet files unpack to {unpacked:,} bytes"
    )
    if unpacked > max(_MOST_UNPACKED, _MOST_PACKED * held):
        raise ValueError(f"{said}, and have {held:,}: no images; refused as made to fill the disk")
    if unpacked > free:
        raise ValueError(
            f"{said}, and {place} has {free:,} free; set data.root to a larger disk, or read them "
            f"in place with data.name=hfids/{config.name.partition('/')[2]}"
        )


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
