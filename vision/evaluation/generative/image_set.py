"""From what the user names as a set of images to the set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

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

_EXPECTED = "expected a folder of images, an .npz, a data config (.yaml) or a run"


@dataclass(frozen=True)
class ImageSet:
    """A set: its images, its saved statistics, or both (as in ADM's reference files)."""

    name: str
    source: ImageSource | None
    statistics: FeatureStatistics | None = None

    def describe(self) -> dict[str, Any]:
        """Its name and, for generated images, how they were sampled."""
        if isinstance(self.source, PipelineSource):
            return {"name": self.name, "seed": self.source.seed, **self.source.options}
        return {"name": self.name}


@dataclass(frozen=True)
class Sampling:
    """How a run given as an image set is sampled."""

    number: int = 50_000
    seed: int = 0
    ema: bool = True
    checkpoint: str = "last"
    sampler: str = "ddpm"
    guidance_scale: float = 1.0
    num_inference_steps: int = 250


def open_image_set(
    text: str,
    overrides: Sequence[str] = (),
    split: str = "train",
    sampling: Sampling | None = None,
    num_workers: int = 0,
    device: Any = "cpu",
) -> ImageSet:
    """A folder of images, an .npz, a data config (.yaml), a run directory or its .ckpt.

    `overrides` and `split` are for a data config, `sampling` and `device` for a run, `num_workers`
    for a folder. Raises ValueError or FileNotFoundError.
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
        return ImageSet(text, _open_run(path, sampling or Sampling(), device))
    if not path.is_dir():
        raise ValueError(f"{text}: {_EXPECTED}")
    return ImageSet(text, FolderSource(path, num_workers))


def as_image_set(images: str | Path | Tensor | ImageSet) -> ImageSet:
    """What `open_image_set` reads, a tensor [N, 1 or 3, H, W] uint8, or a set opened before."""
    if isinstance(images, ImageSet):
        return images
    if isinstance(images, Tensor):
        source = TensorSource(images)
        return ImageSet(source.name, source)
    return open_image_set(str(images))


def _open_run(path: Path, sampling: Sampling, device: Any) -> PipelineSource:
    from vision.diffusion.load_pipeline import load_pipeline  # imports diffusers: seconds

    options = dataclasses.asdict(sampling)
    number, seed = options.pop("number"), options.pop("seed")
    pipeline: Any = load_pipeline(
        path, options.pop("checkpoint"), options.pop("ema"), options.pop("sampler")
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    return PipelineSource(str(path), pipeline, number, seed, **options)
