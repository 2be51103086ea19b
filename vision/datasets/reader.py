"""What all readers have in common: `reader[i]` is (encoded file or PIL image, class)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from PIL import Image

from vision.datasets.image_files import DECODE_ERRORS, Mode, decode
from vision.errors import CorruptImageError

Item = tuple[IO[bytes] | Image.Image, int]  # (file to be closed by the caller, or image; class)


class Reader:
    """Images by index, decoded only where the library behind it insists on that."""

    class_names: list[str] | None = None  # None: the data set does not say
    labels: Sequence[int] | None = None  # class of each image; None: known by reading it only
    image_size: tuple[int, int] | None = None  # (height, width) where all have the same
    shard_sizes: Sequence[int] | None = None  # set: fast only in the order of these shards

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Item:
        raise NotImplementedError

    def filename(self, index: int) -> str:
        """The place of the image, for messages."""
        raise NotImplementedError


def read_image(
    reader: Reader, index: int, mode: Mode, item: Item | None = None
) -> tuple[Image.Image, int]:
    """(decoded image, class) of `reader[index]`, or of `item` where that was read before.

    Raises CorruptImageError with the place of the image.
    """
    try:
        file, label = item or reader[index]
        return decode(file, mode), int(label)
    except DECODE_ERRORS as error:
        raise CorruptImageError.of(reader.filename(index), error) from error
