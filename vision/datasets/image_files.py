"""Image files: which of them a folder holds, and how one becomes pixels."""

from __future__ import annotations

import contextlib
import struct
import zlib
from pathlib import Path
from typing import IO, Literal

from PIL import Image
from timm.data.readers.reader_image_folder import find_images_and_targets
from torchvision.datasets.folder import IMG_EXTENSIONS

from vision.errors import CorruptImageError

Mode = Literal["L", "RGB"]

# what Pillow raises for bytes that are not an image, or only half of one
DECODE_ERRORS = (
    OSError,  # UnidentifiedImageError, truncated files, missing files
    SyntaxError,  # broken PNG
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def list_images(folder: Path) -> tuple[list[tuple[str, int]], dict[str, int]]:
    """All images below `folder`, links followed: [(path, class)] and the classes' numbers.

    A file is an image by its extension (torchvision's `IMG_EXTENSIONS`) and its class is the name
    of the folder that holds it ("" directly in `folder`). Both are in natural order: 2 before 10.
    """
    return find_images_and_targets(str(folder), types=IMG_EXTENSIONS)


def image_mode(channels: int) -> Mode:
    """Pillow's name for images of 1 (grey) or 3 channels."""
    return "L" if channels == 1 else "RGB"


def decode(file: Path | IO[bytes] | Image.Image, mode: Mode) -> Image.Image:
    """The decoded image, converted to `mode`; an open file is closed.

    Raises one of `DECODE_ERRORS`: `read_file` and `readers.read_image` name the image in theirs.
    """
    if isinstance(file, Image.Image):
        return file.convert(mode)
    with contextlib.ExitStack() as stack:
        if not isinstance(file, Path):
            stack.enter_context(file)
        image = stack.enter_context(Image.open(file))
        image.load()  # decodes all of it
        # convert() copies even where there is nothing to convert
        return image if image.mode == mode else image.convert(mode)


def read_file(path: Path, mode: Mode) -> Image.Image:
    """The image in a file, converted to `mode`. Raises CorruptImageError with its path."""
    try:
        return decode(path, mode)
    except DECODE_ERRORS as error:
        raise CorruptImageError.of(str(path), error) from error
