"""From what the user names as a set of images to the set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vision.diffusion.generate import Sampling
from vision.evaluation.generative.array_source import ArraySource
from vision.evaluation.generative.saved_statistics import npz_keys, read_statistics
from vision.evaluation.generative.sources import (
    DataSource,
    FolderSource,
    ImageSource,
    PipelineSource,
    TensorSource,
)
from vision.metrics.base import FeatureStatistics

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z")
_EXPECTED = "expected a folder of images, an .npz, a data config (.yaml) or a run"


@dataclass(frozen=True)
class ImageSet:
    """A set: its images, its saved statistics, or both (as in ADM's reference files)."""

    name: str
    source: ImageSource | None
    statistics: FeatureStatistics | None = None

    def describe(self) -> dict[str, Any]:
        """Its name, and how its images were sampled or prepared."""
        if isinstance(self.source, PipelineSource):
            return {"name": self.name, **dataclasses.asdict(self.source.sampling)}
        if isinstance(self.source, DataSource):
            return {"name": self.name, **self.source.settings}
        return {"name": self.name}


def open_image_set(
    text: str,
    overrides: Sequence[str] = (),
    split: str = "train",
    sampling: Sampling | None = None,
    number: int | None = None,
    num_workers: int = 0,
    device: Any = "cpu",
) -> ImageSet:
    """A folder of images, an .npz, a data config (.yaml), a run directory or its .ckpt.

    `overrides` and `split` are for a data config, `num_workers` for a folder; `sampling`, `device`
    and `number` (of images; None: 50,000) for a run. Raises ValueError or FileNotFoundError.
    """
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        return ImageSet(text, DataSource.load(text, overrides, split))
    if not path.exists():
        raise FileNotFoundError(f"{text}: no such file or folder; {_EXPECTED}")
    if path.suffix == ".npz":
        keys = npz_keys(path)
        images, statistics = "arr_0" in keys, {"mu", "sigma"} <= keys
        if not images and not statistics:
            raise ValueError(f"{text}: holds neither images (arr_0) nor statistics (mu, sigma)")
        return ImageSet(
            text,
            ArraySource(path) if images else None,
            read_statistics(path) if statistics else None,
        )
    is_run = any(
        (path / name).exists() for name in ("last.ckpt", "config.yaml", "model_index.json")
    )
    if is_run or path.suffix == ".ckpt":
        return ImageSet(text, _open_run(path, sampling or Sampling(), number or 50_000, device))
    if not path.is_dir():
        archive = "an archive; unpack it: " if path.suffix in _ARCHIVES else ""
        raise ValueError(f"{text}: {archive}{_EXPECTED}")
    if (path / "settings.json").is_file() and (path / "images").is_dir():
        path /= "images"  # of tools/sample.py, which writes a grid beside them
    return ImageSet(str(path), FolderSource(path, num_workers))


def as_image_set(images: str | Path | Tensor | ImageSet) -> ImageSet:
    """What `open_image_set` reads, a tensor [N, 1 or 3, H, W] uint8, or a set opened before."""
    if isinstance(images, ImageSet):
        return images
    if isinstance(images, Tensor):
        source = TensorSource(images)
        return ImageSet(source.name, source)
    return open_image_set(str(images))


def _open_run(path: Path, sampling: Sampling, number: int, device: Any) -> PipelineSource:
    # diffusers' pipelines take half a second to import, which every training would pay
    from vision.diffusion.load_pipeline import load_pipeline
    from vision.diffusion.schedulers import sampler_name

    pipeline = load_pipeline(path, ema=sampling.ema, sampler=sampling.sampler)
    sampling = dataclasses.replace(sampling, sampler=sampler_name(pipeline.scheduler))
    return PipelineSource(str(path), pipeline.to(device), number, sampling)
