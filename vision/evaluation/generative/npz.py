""".npz files: images as ADM's sampler writes them, and statistics as pytorch-fid and ADM do."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision.files import written
from vision.metrics.features import file_hash
from vision.metrics.moments import Statistics

_IMAGES = "arr_0"


@dataclass(frozen=True)
class Measured:
    """What is known of a set: statistics, and a subset of its features where they were kept.

    `settings` None: the file does not say how its statistics were computed.
    """

    settings: dict[str, Any] | None
    statistics: Statistics | None
    spatial: Statistics | None = None
    features: Tensor | None = None  # [N, D] float32


class ArraySource:
    """`arr_0` of an .npz: [N, H, W, 3] (or [N, H, W] or one channel: grey), read as a stream.

    uint8, or floating point with values from 0 to 1. Loading the array whole would take 10 GB
    for 50,000 images of 256 x 256.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.path = path
        with _open_array(path) as (_, shape, dtype):
            self.shape, self.dtype = shape, dtype
        channels = shape[3:] or (1,)
        if len(shape) not in (3, 4) or channels[0] not in (1, 3) or shape[0] < 1:
            raise ValueError(
                f"{path}: {_IMAGES} has the shape {shape}; expected [N, H, W, 3] (or grey)"
            )
        if dtype != np.uint8 and dtype.kind != "f":
            raise ValueError(f"{path}: {_IMAGES} is {dtype}; expected uint8, or floats from 0 to 1")

    def __len__(self) -> int:
        return self.shape[0]

    def batches(self, indices: Sequence[int], batch_size: int) -> Iterator[Tensor]:
        """Images [B, 3, H, W] uint8; ValueError names an image with NaN or out of range."""
        size = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        with _open_array(self.path) as (file, _, _):
            position = 0
            for start in range(0, len(indices), batch_size):
                rows = []
                for index in indices[start : start + batch_size]:
                    _skip(file, (int(index) - position) * size)
                    rows.append(self._image(file.read(size), int(index)))
                    position = int(index) + 1
                yield torch.stack(rows)

    def fingerprint(self) -> str:
        return file_hash(self.path)

    def _image(self, content: bytes, index: int) -> Tensor:
        values = np.frombuffer(content, self.dtype).reshape(*self.shape[1:3], -1)
        if self.dtype != np.uint8:
            if not np.isfinite(values).all():
                raise ValueError(f"{self.path}: image {index} of {_IMAGES} holds NaN or infinity")
            if values.min() < 0 or values.max() > 1:
                raise ValueError(
                    f"{self.path}: image {index} of {_IMAGES} has values from {values.min():.4g} "
                    f"to {values.max():.4g}; expected floats from 0 to 1, or uint8"
                )
            values = np.rint(values.astype(np.float64) * 255).astype(np.uint8)
        return torch.from_numpy(values.copy()).permute(2, 0, 1).expand(3, -1, -1)


def has_images(path: Path) -> bool:
    """Whether the file holds images (`arr_0`)."""
    return f"{_IMAGES}.npy" in _names(path)


def has_statistics(path: Path) -> bool:
    """Whether the file holds statistics (`mu` and `sigma`)."""
    return {"mu.npy", "sigma.npy"} <= _names(path)


def read_measured(path: Path) -> Measured:
    """Saved statistics: ours, pytorch-fid's (mu, sigma) or ADM's (and mu_s, sigma_s).

    Raises ValueError for shapes that do not fit.
    """
    wanted = ("mu", "sigma", "mu_s", "sigma_s", "count", "settings", "features")
    with np.load(path, allow_pickle=False) as file:
        found = {key: file[key] for key in wanted if key in file}
    for key, entry in found.items():
        if not isinstance(entry, np.ndarray):  # numpy hands out the bytes of what is none
            raise ValueError(f"{path}: {key} is no array; write the file again")
    count = int(found["count"]) if "count" in found else None
    pairs = {}
    for mean, cov in (("mu", "sigma"), ("mu_s", "sigma_s")):
        if mean not in found or cov not in found:
            continue
        m, c = (found[key].astype(np.float64) for key in (mean, cov))
        if m.ndim != 1 or c.shape != (len(m), len(m)):
            raise ValueError(
                f"{path}: {mean} {m.shape} and {cov} {c.shape}: expected [D] and [D, D]"
            )
        pairs[mean] = Statistics(count, m, c)
    settings = json.loads(str(found["settings"])) if "settings" in found else None
    features = torch.from_numpy(found["features"]) if "features" in found else None
    return Measured(settings, pairs.get("mu"), pairs.get("mu_s"), features)


def write_measured(path: Path, measured: Measured) -> None:
    """Write what `read_measured` reads."""
    content: dict[str, Any] = {"settings": json.dumps(measured.settings, sort_keys=True)}
    pairs = (("mu", "sigma", measured.statistics), ("mu_s", "sigma_s", measured.spatial))
    for mean, cov, statistics in pairs:
        if statistics is not None:
            content |= {mean: statistics.mean, cov: statistics.cov, "count": statistics.count}
    if measured.features is not None:
        content["features"] = measured.features.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)


def _names(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an .npz file ({error}); write it again") from error


@contextmanager
def _open_array(path: Path) -> Iterator[tuple[Any, tuple[int, ...], np.dtype]]:
    """`arr_0` as (file behind its header, shape, dtype)."""
    headers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    with zipfile.ZipFile(path) as archive, archive.open(f"{_IMAGES}.npy") as file:
        shape, fortran, dtype = headers[np.lib.format.read_magic(file)](file)
        if fortran or dtype.hasobject:
            raise ValueError(f"{path}: {_IMAGES} is {dtype} in an order that cannot be streamed")
        yield file, shape, dtype


def _skip(file: Any, size: int) -> None:
    while size > 0:
        size -= len(file.read(min(size, 1 << 24)))
