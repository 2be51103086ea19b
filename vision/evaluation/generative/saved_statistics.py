"""Statistics of image sets in .npz files as pytorch-fid and ADM write them, and a cache of them."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vision.evaluation.generative.array_source import read_header
from vision.evaluation.generative.features import Extractor
from vision.evaluation.generative.sources import ImageSource
from vision.files import written
from vision.metrics.accumulators import Moments
from vision.metrics.base import FeatureStatistics, Need, Options

_MOST_UNPACKED = 2**30  # bytes of an array, where its file is smaller


def npz_keys(path: Path) -> set[str]:
    """Names of the arrays in an .npz file. Raises ValueError for a file that is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: not an .npz file ({error}); write it again") from error


def read_statistics(path: Path) -> FeatureStatistics:
    """Saved statistics: ours, pytorch-fid's (mu, sigma) or ADM's (and mu_s, sigma_s).

    Raises ValueError for shapes that do not fit.
    """
    wanted = ("mu", "sigma", "mu_s", "sigma_s", "count", "settings", "features")
    try:
        _check_sizes(path, wanted)
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in wanted if key in file}
    except ValueError as error:  # of objects, which would run code as they are read
        raise ValueError(f"{path}: cannot be read ({error}); write plain arrays") from error
    for key, entry in found.items():
        if not isinstance(entry, np.ndarray):  # numpy returns the bytes of a member that is none
            raise ValueError(f"{path}: {key} is no array; write the file again")
    count = int(found["count"]) if "count" in found else None
    pairs = {}
    for mean, cov in (("mu", "sigma"), ("mu_s", "sigma_s")):
        if mean not in found or cov not in found:
            continue
        m, c = (found[key].astype(np.float64) for key in (mean, cov))
        if m.ndim != 1 or c.shape != (len(m), len(m)):
            raise ValueError(
                f"{path}: {mean} {m.shape} and {cov} {c.shape}: expected [D] and [D, D]"
            )
        pairs[mean] = Moments(count, m, c)
    settings = json.loads(str(found["settings"])) if "settings" in found else None
    features = torch.from_numpy(found["features"]) if "features" in found else None
    return FeatureStatistics(settings, pairs.get("mu"), pairs.get("mu_s"), features)


def _check_sizes(path: Path, names: Collection[str]) -> None:
    """Raise ValueError for arrays that are not as large as they say, or unpack to far more than
    their file.

    numpy makes room for what a header says before it reads anything. What `write_statistics` wrote
    is not packed, so that it passes at any size.
    """
    held = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for name in names:
            if f"{name}.npy" not in archive.namelist():
                continue
            with archive.open(f"{name}.npy") as file:
                shape, _, dtype = read_header(path, archive, name, file)
            if math.prod(shape) * dtype.itemsize > max(held, _MOST_UNPACKED):
                raise ValueError(
                    f"{name} is {dtype} of the shape {shape}: more than 1 GiB, out of a file of "
                    f"{held:,} bytes"
                )


def write_statistics(path: Path, statistics: FeatureStatistics) -> None:
    """Write what `read_statistics` reads; not packed."""
    content: dict[str, Any] = {"settings": json.dumps(statistics.settings, sort_keys=True)}
    pairs = (("mu", "sigma", statistics.moments), ("mu_s", "sigma_s", statistics.spatial_moments))
    for mean, cov, moments in pairs:
        if moments is not None:
            content |= {mean: moments.mean, cov: moments.cov}
            if moments.count is not None:  # an .npz of others may not say it
                content["count"] = moments.count
    if statistics.features is not None:
        content["features"] = statistics.features.numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)


class StatisticsCache:
    """Statistics of reference sets by their content and by the settings that they depend on.

    Files in `folder`; None: `vision/statistics` in the user's cache folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        if folder is None:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            folder = Path(home) / "vision" / "statistics"
        self.folder = Path(folder)

    def file(
        self, source: ImageSource, extractor: Extractor, needs: Collection[Need], options: Options
    ) -> Path | None:
        """Where the statistics of `source` belong; None where they are not worth keeping."""
        content = source.fingerprint()
        if content is None:
            return None
        kept = options.max_features if "features" in needs else 0
        settings = ["3", sorted(needs), kept, options.real_number, options.seed]
        text = json.dumps([content, extractor.settings, settings], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
