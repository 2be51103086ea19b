"""The index of a large data set, which takes a pass over it to make, kept for the next start."""

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

    `key` (JSON types) has to change when the data changes. Files are in `vision/index` in the
    user's cache folder; an unreadable one is made again, and none is kept where writing fails.
    No array may hold objects or have more rows than there are images.
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
