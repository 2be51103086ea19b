"""Checkpoint files that are whole or not there: written beside their place, checked, renamed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch


class UnwritableError(OSError):
    """A checkpoint that could not be written; what was saved before is intact."""


def check_whole(file: Path) -> None:
    """Raise ValueError if a file written by `torch.save` was cut short or changed since.

    It is a zip archive, whose entries carry a CRC-32 that `torch.load` does not look at when it
    maps the file to memory. Files in other formats pass: their readers have checks of their own.
    """
    if not zipfile.is_zipfile(file):
        with file.open("rb") as start:
            if start.read(4) == b"PK\x03\x04":
                raise ValueError(f"{file}: not a checkpoint, or cut short (its end is missing)")
        return
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(f"{file}: damaged ({error})") from None
    if damaged is not None:
        raise ValueError(f"{file}: damaged, {damaged} is not what was written")


def save_whole(content: dict[str, Any], file: Path, previous: Path | None = None) -> None:
    """`torch.save` under a temporary name, read back, then renamed to `file`.

    What `file` was before becomes `previous`, once the new one is whole.

    Raises UnwritableError, leaving both as they were, for instance where the disk is full.
    """
    temporary = file.with_name(f"{file.name}.tmp")
    try:
        with temporary.open("wb") as out:
            torch.save(content, out)
            out.flush()
            os.fsync(out.fileno())
        check_whole(temporary)
        if previous is not None and file.is_file():
            os.replace(file, previous)
        os.replace(temporary, file)
    except (OSError, RuntimeError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise UnwritableError(
            f"{file}: could not be written ({reason}); what was saved before is intact. Make room "
            "or choose another output_dir, then continue with --resume"
        ) from error
