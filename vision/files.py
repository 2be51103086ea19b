"""Files that are complete or absent: written under another name, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vision.errors import PlaceError
from vision.text import show


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; the file is renamed to `path` at the end.

    An error inside removes the file and leaves `path` as it was; an OSError names `path`. The
    temporary name ends in ".tmp", so that it is not taken for a finished file: tell the format to a
    writer that looks at the extension. It is never the same twice, so that several processes may
    write `path`.
    """
    temporary = _beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        _name(error, temporary, path)
        with suppress(OSError):  # what is wrong is known already
            temporary.unlink(missing_ok=True)
        raise


def _name(error: BaseException, temporary: Path, path: Path) -> None:
    """Let an OSError say what was asked for, not how the temporary file is called."""
    if isinstance(error, OSError) and error.filename == str(temporary):
        error.filename = str(path)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")


def check_writable(path: Path) -> None:
    """Make the folder of `path` and see that a file can be made there, before hours of work.

    Raises PlaceError, with the name of what is in the way.
    """
    temporary = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        _name(error, temporary, path)
        raise PlaceError(error.errno, error.strerror, error.filename) from error


def check_folder(folder: Path) -> None:
    """See that `folder` can be written to, or be made where it is not there yet; touches nothing.

    Raises PlaceError that names it.
    """
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        problem = errno.ENOTDIR
    elif os.access(place, os.W_OK | os.X_OK):  # of a read-only disk false for root as well
        return
    else:
        problem = errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES
    raise PlaceError(problem, os.strerror(problem), str(folder))


def write_json(path: Path, value: Any) -> None:
    """Write `value`, indented. JSON has no NaN and no infinity: they become null, and a line says
    which."""
    nulls: list[str] = []
    value = _without_nonfinite(value, "", nulls)
    with written(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if nulls:
        more = f" and {len(nulls) - 3} more" if len(nulls) > 3 else ""
        show(f"{path}: not finite, null there: {', '.join(nulls[:3])}{more}", error=True)


def _without_nonfinite(value: Any, name: str, nulls: list[str]) -> Any:
    """`value` with null for numbers that are not finite, whose names are added to `nulls`."""
    if isinstance(value, dict):
        return {k: _without_nonfinite(v, f"{name}.{k}".strip("."), nulls) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nonfinite(v, f"{name}[{i}]", nulls) for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        nulls.append(name)
        return None
    return value


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
