"""Images in .npz files as ADM's sampler writes them, read one by one."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision.files import file_hash

_IMAGES = "arr_0"
_MOST_PIXELS = 4096 * 4096  # of an image: a batch of them is read at once
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class ArraySource:
    """`arr_0` of an .npz: [N, H, W, 3] (or [N, H, W] or one channel: grey), streamed.

    uint8, or floating point with values from 0 to 1. The whole array would take 10 GB for
    50,000 images of 256 x 256.
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
        if shape[1] * shape[2] > _MOST_PIXELS:
            raise ValueError(
                f"{path}: {_IMAGES} has the shape {shape}; expected images of 4096 x 4096 or fewer"
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
                    file.seek((index - position) * size, os.SEEK_CUR)
                    rows.append(self._image(file.read(size), index))
                    position = index + 1
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


@contextmanager
def _open_array(path: Path) -> Iterator[tuple[Any, tuple[int, ...], np.dtype]]:
    """`arr_0` as (file behind its header, shape, dtype)."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{_IMAGES}.npy") as file:
        shape, fortran, dtype = read_header(path, archive, _IMAGES, file)
        if fortran or dtype.hasobject:
            raise ValueError(f"{path}: {_IMAGES} is {dtype} in an order that cannot be streamed")
        yield file, shape, dtype


def read_header(
    path: Path, archive: zipfile.ZipFile, name: str, file: Any
) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, Fortran order and dtype of an array, whose `file` is then behind its header.

    Raises ValueError where the array is not as large as its header says.
    """
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(
            f"{path}: {name} is of .npy version {version[0]}.{version[1]}, expected 1.0 or 2.0; "
            "write it again with numpy.savez"
        )
    shape, fortran, dtype = _HEADERS[version](file)
    held = archive.getinfo(f"{name}.npy").file_size - file.tell()
    said = math.prod(shape) * dtype.itemsize
    if held != said and not dtype.hasobject:
        raise ValueError(f"{path}: {name} holds {held:,} bytes, its header says {said:,}")
    return shape, fortran, dtype
