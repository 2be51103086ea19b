"""Statistics of reference sets, kept by their content and by the settings that made them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from vision.evaluation.generative.measure import Plan
from vision.evaluation.generative.npz import Measured, read_measured, write_measured
from vision.evaluation.generative.sources import Source
from vision.metrics.features import Extractor

_FREE = ("batch_size", "groups", "score_splits")  # change nothing in what is kept


class StatisticsCache:
    """Files in `folder`; None: `vision/statistics` in the user's cache folder."""

    def __init__(self, folder: str | Path | None = None) -> None:
        if folder is None:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            folder = Path(home) / "vision" / "statistics"
        self.folder = Path(folder)

    def key(self, source: Source, extractor: Extractor, plan: Plan) -> str | None:
        """Name of the statistics of `source`; None where they are not worth keeping."""
        content = source.fingerprint()
        if content is None:
            return None
        settings = dataclasses.asdict(plan)
        for name in _FREE:
            del settings[name]
        text = json.dumps([content, extractor.settings, settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self, key: str | None) -> Measured | None:
        """What was kept under `key`, if anything."""
        path = self.folder / f"{key}.npz"
        return read_measured(path) if key is not None and path.is_file() else None

    def write(self, key: str | None, measured: Measured) -> None:
        """Keep `measured` under `key`."""
        if key is not None:
            write_measured(self.folder / f"{key}.npz", measured)
