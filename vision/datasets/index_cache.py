"""What was found out about a large data set by reading through it, kept for the next start."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vision.files import written

_WORTH_KEEPING = 10_000  # images; fewer are indexed in a second

Arrays = dict[str, np.ndarray]


def cached_index(key: Any, build: Callable[[], Arrays]) -> Arrays:
    """`build()`, or what it returned for the same `key` at an earlier start.

    `key` (JSON types) has to change when the data does. Files are in `vision/index` in the user's
    cache folder; one that cannot be read is made again, and without a place to write none is kept.
    The first axis of all arrays, none of which holds objects, is images, or less.
    """
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home) / "vision" / "index" / f"{name}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {array: file[array] for array in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        arrays = build()
    if max(len(array) for array in arrays.values()) >= _WORTH_KEEPING:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with written(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            logging.getLogger("vision").info("the index of the data is not kept: %s", error)
    return arrays
