"""Checkpoint files that are whole or not there: written beside their place, checked, renamed."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from vision.errors import UnwritableError

REST = "rest.ckpt"  # in a folder that vision.checkpoints.sharded wrote: all but the sharded tensors


def is_sharded(path: Path) -> bool:
    """Whether `path` is a checkpoint in the form of a folder, one file per process."""
    return (path / REST).is_file()


def check_whole(file: Path) -> None:
    """Raise ValueError if a file written by `torch.save` was cut short or changed since.

    It is a zip archive, whose entries carry a CRC-32 that `torch.load` does not look at when it
    maps the file to memory. Files in other formats pass: their readers have checks of their own.
    """
    if file.is_dir():
        raise ValueError(f"{file}: not a checkpoint, {REST} is missing")
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
        put_in_place(temporary, file, previous)
    except (OSError, RuntimeError, ValueError) as error:
        temporary.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise UnwritableError(
            f"{file}: could not be written ({reason}); what was saved before is intact. Make room "
            "or choose another output_dir, then continue with --resume"
        ) from error


def previous_of(path: Path) -> Path | None:
    """Where the checkpoint before `path` is kept: only that of last.ckpt is."""
    return path.with_name("previous.ckpt") if path.name == "last.ckpt" else None


def put_in_place(new: Path, path: Path, previous: Path | None = None) -> None:
    """Rename `new` to `path`; what that was before becomes `previous`. Files or folders."""
    if previous is not None and path.exists():
        _rename(path, previous)
    _rename(new, path)


def _rename(source: Path, target: Path) -> None:
    """`os.replace`, also where either is a folder."""
    if target.is_dir() or (source.is_dir() and target.exists()):
        aside = target.with_name(f"{target.name}.old.tmp")
        _remove(aside)
        os.replace(target, aside)
        os.replace(source, target)
        _remove(aside)
    else:
        os.replace(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
