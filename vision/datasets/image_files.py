"""Image files: which of them a folder holds, and how one becomes pixels."""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image
from timm.utils.misc import natural_key

from vision.errors import CorruptImageError

Mode = Literal["L", "RGB"]

# what Pillow decodes by itself: no video, and no EPS or WMF, which start another program
_FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM"),
    *("QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
Image.init()
FORMATS = tuple(name for name in _FORMATS if name in Image.OPEN)  # AVIF is optional
ENDINGS = frozenset(
    ending for ending, name in Image.registered_extensions().items() if name in FORMATS
)
_LEFTOVERS = ("__MACOSX", "@eaDir")  # of macOS archives and Synology's previews

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


@dataclass
class Listing:
    """The image files of a folder (or the members of a tar), and what was passed over."""

    files: list[str] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)  # files that are no images, by ending
    hidden: int = 0  # hidden files and folders
    empty: list[str] = field(default_factory=list)  # folders without an image below them

    def passed_over(self) -> str:
        """What is not among the images, with counts; "" for nothing."""
        kinds = [f"{count} {ending}" for ending, count in self.passed.most_common(8)]
        more = len(self.passed) - len(kinds)
        listed = ", ".join(kinds) + (f" and {more} other endings" if more else "")
        parts = [f"{self.passed.total()} files that are no images ({listed})"] if kinds else []
        if self.hidden:
            parts.append(f"{self.hidden} hidden files or folders")
        if self.empty:
            first = ", ".join(sorted(self.empty)[:5]) + (", ..." if len(self.empty) > 5 else "")
            parts.append(f"{len(self.empty)} folders without an image ({first})")
        return "; ".join(parts)


def list_images(folder: Path) -> Listing:
    """All images below `folder`, links followed, in natural order of their paths: 2 before 10.

    A file is an image by its ending, one of `ENDINGS`; hidden files and folders are left out.
    Raises ValueError for a folder that may not be listed.
    """
    found = Listing()
    _list(str(folder), found)
    found.files.sort(key=natural_key)
    return found


def _list(folder: str, found: Listing) -> None:
    try:
        with os.scandir(folder) as entries:
            content = list(entries)
    except OSError as error:
        raise ValueError(f"{folder}: this folder cannot be listed ({error.strerror})") from error
    for entry in content:
        if is_hidden(entry.name):
            found.hidden += 1
        elif entry.is_dir():
            if entry.is_symlink() and Path(folder).resolve().is_relative_to(
                os.path.realpath(entry)
            ):
                continue  # a link upwards: all of it is listed already
            before = len(found.files)
            _list(entry.path, found)
            if len(found.files) == before:
                found.empty.append(entry.name)
        # a link that leads nowhere is an image that cannot be read; a pipe is none
        elif ending_of(entry.name) in ENDINGS and (entry.is_file() or entry.is_symlink()):
            found.files.append(entry.path)
        else:
            found.passed[ending_of(entry.name) or "without ending"] += 1


def ending_of(name: str) -> str:
    """The ending of a file's name in lower case, with its dot."""
    stem, dot, ending = name.rpartition(".")
    return dot + ending.lower() if stem else ""


def is_hidden(path: str) -> bool:
    """Whether a part of `path` is hidden: begins with a dot, or is what an archiver left."""
    parts = [part for part in path.split("/") if part not in (".", "..")]
    return any(part.startswith(".") or part in _LEFTOVERS for part in parts)


def image_mode(channels: int) -> Mode:
    """Pillow's name for images of 1 (grey) or 3 channels."""
    return "L" if channels == 1 else "RGB"


def decode(file: Path | IO[bytes] | Image.Image, mode: Mode) -> Image.Image:
    """The decoded image, converted to `mode`; an open file is closed.

    16 bits become 8 by their range, and so do floats from 0 to 1. Raises one of `DECODE_ERRORS`,
    ValueError for another range: `read_file` and `readers.read_image` name the image in theirs.
    """
    image = _eight_bits(file if isinstance(file, Image.Image) else load(file))
    # convert() copies even where there is nothing to convert
    return image if image.mode == mode and image is not file else image.convert(mode)


def load(file: str | Path | IO[bytes]) -> Image.Image:
    """The whole image in a file, in the mode that it has; an open file is closed."""
    with contextlib.ExitStack() as stack:
        if not isinstance(file, (str, Path)):
            stack.enter_context(file)
        image = stack.enter_context(Image.open(file, formats=FORMATS))
        image.load()  # decodes all of it
        return image


def read_file(path: Path, mode: Mode) -> Image.Image:
    """The image in a file, converted to `mode`. Raises CorruptImageError with its path."""
    try:
        return decode(path, mode)
    except DECODE_ERRORS as error:
        raise CorruptImageError.of(str(path), error) from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """`image`, or "L" of 0 to 255 for the grey modes of another range.

    Pillow would cut their values at 255 (tried with Pillow 13.0).
    """
    if image.mode.startswith("I;16"):
        most = 2 ** _bits(image) - 1
    elif image.mode == "I" and image.format == "PPM":
        most = 65535  # whatever the file's own maximum
    elif image.mode == "F":
        most = 1
    elif image.mode == "I":
        raise ValueError("32-bit integers of unknown range; save it with 8 or 16 bits")
    else:
        return image
    values = np.asarray(image).astype(np.float64)
    if not (values.min() >= 0 and values.max() <= most):  # also where there are NaN
        raise ValueError(
            f"values from {values.min():.4g} to {values.max():.4g}, expected 0 to {most}; "
            "save it with 8 or 16 bits"
        )
    return Image.fromarray(np.rint(values * (255 / most)).astype(np.uint8))


def _bits(image: Image.Image) -> int:
    """Bits of a 16-bit mode that are used: TIFF has 12 of them too."""
    tags = getattr(image, "tag_v2", None)
    return tags[258][0] if tags is not None and 258 in tags else 16
