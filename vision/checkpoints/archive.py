"""Checkpoint files: written whole or not at all, checked, and read without running code."""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from vision.errors import UnwritableError, first_line

_MOST_REPEATED = 2**30  # bytes of a tensor that holds fewer and repeats them


def read_file(file: Path, check: bool = True) -> dict[str, Any]:
    """Everything in one file; of a .safetensors file its tensors. Raises ValueError.

    Without `check`, which reads all bytes, tensors are mapped and read where they are used.
    """
    if check:
        check_whole(file)
    try:
        if file.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(file))
        # MAE's training script keeps its arguments beside the weights: data, not code
        with torch.serialization.safe_globals([argparse.Namespace]):
            mapped = zipfile.is_zipfile(file)
            if not mapped and not _is_pickle(file):  # as was torch's format before 1.6
                raise ValueError(f"{file}: not a checkpoint, or cut short")
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{file}: refused, it holds more than weights and might run code "
            f"({first_line(error)}); save its state dict alone, with torch.save or as .safetensors"
        ) from None
    except (RuntimeError, safetensors.SafetensorError, EOFError, OSError) as error:
        raise ValueError(f"{file}: not a checkpoint, or cut short ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: holds {type(content).__name__}, expected a state dict")
    for name, tensor in _tensors(content):
        if tensor.nbytes > _MOST_REPEATED > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{file}: {name} has the shape {tuple(tensor.shape)}, and holds "
                f"{tensor.untyped_storage().nbytes():,} bytes; save it as it is, not expanded"
            )
    return content


def _tensors(content: dict[Any, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in a dict and in those within it."""
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            yield str(name), value
        elif isinstance(value, dict):
            yield from _tensors(value)


def _is_pickle(file: Path) -> bool:
    with file.open("rb") as start:
        return start.read(1) == b"\x80"


def check_whole(file: Path) -> None:
    """Raise ValueError if a file written by `torch.save` was cut short or changed since.

    Such a file is a zip archive. Its entries carry a CRC-32, which `torch.load` ignores when it
    maps the file to memory. Files in other formats pass: their readers check them.
    """
    if file.is_dir():
        raise ValueError(f"{file}: a folder, but not a sharded checkpoint")
    if file.stat().st_size == 0:
        raise ValueError(f"{file}: empty file")
    if not zipfile.is_zipfile(file):
        with file.open("rb") as start:
            if start.read(4) == b"PK\x03\x04":
                raise ValueError(f"{file}: not a checkpoint, or cut short (its end is missing)")
        return
    try:
        with zipfile.ZipFile(file) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type]
            if packed:  # might unpack to any size
                raise ValueError(f"{file}: not a checkpoint: {packed[0]} in it is compressed")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise ValueError(f"{file}: damaged ({error})") from None
    if damaged is not None:
        raise ValueError(f"{file}: damaged, the checksum of {damaged} does not match")


def save_whole(content: dict[str, Any], file: Path, previous: Path | None = None) -> None:
    """`torch.save` to a temporary name, read back, then rename to `file`.

    The file that had this name becomes `previous` once the new one is whole. Raises
    UnwritableError, leaving both as they were, for instance when the disk is full.
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
        with suppress(OSError):  # what is wrong is known already
            temporary.unlink(missing_ok=True)
        raise unwritable(file, refusal_behind(error)) from error


def refusal_behind(error: BaseException) -> BaseException:
    """What the system said, where torch.save failed again as it ended a file that was refused."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__context__
    return found or error


def unwritable(path: Path, reason: object) -> UnwritableError:
    """The error for a checkpoint that could not be written."""
    said = getattr(reason, "strerror", None) or first_line(reason)  # without a temporary name
    return UnwritableError(
        f"{path}: could not be written ({said}); the checkpoint before it "
        "is intact. Free space or choose another output_dir, then continue with --resume"
    )


def previous_of(path: Path) -> Path | None:
    """Where the checkpoint before `path` is kept; only last.ckpt has one."""
    return path.with_name("previous.ckpt") if path.name == "last.ckpt" else None


def put_in_place(new: Path, path: Path, previous: Path | None = None) -> None:
    """Rename `new` to `path`, and what had that name to `previous`. Files or folders."""
    if previous is not None and path.exists():
        _rename(path, previous)
    _rename(new, path)


def _rename(source: Path, target: Path) -> None:
    """`os.replace`, which cannot replace a folder, or anything by a folder."""
    aside = target.with_name(f"{target.name}.old.tmp")
    if target.exists() and (source.is_dir() or target.is_dir()):
        _remove(aside)
        os.replace(target, aside)
    os.replace(source, target)
    _remove(aside)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
