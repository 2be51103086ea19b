"""From what a person names as a set of images to the set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vision.evaluation.generative.npz import (
    ArraySource,
    Measured,
    has_images,
    has_statistics,
    read_measured,
)
from vision.evaluation.generative.sources import (
    DataSource,
    FolderSource,
    PipelineSource,
    Source,
    TensorSource,
)


@dataclass(frozen=True)
class Given:
    """A set: its images, its saved statistics, or both (ADM's reference files)."""

    name: str
    source: Source | None
    measured: Measured | None = None

    def describe(self) -> dict[str, Any]:
        """Name and, for generated images, how they were sampled."""
        found: dict[str, Any] = {"name": self.name}
        if isinstance(self.source, PipelineSource):
            found |= {"seed": self.source.seed, **self.source.options}
        return found


@dataclass(frozen=True)
class Sampling:
    """How a run given as a source is sampled."""

    number: int = 50_000
    seed: int = 0
    ema: bool = True
    checkpoint: str = "last"
    sampler: str = "ddpm"
    guidance_scale: float = 1.0
    num_inference_steps: int = 250


def open_source(
    text: str,
    overrides: Sequence[str] = (),
    split: str = "train",
    sampling: Sampling | None = None,
    num_workers: int = 0,
    device: Any = "cpu",
) -> Given:
    """A folder of images, an .npz, a data config (.yaml), a run directory or its .ckpt.

    `overrides` and `split` are for a data config, `sampling` and `device` for a run. Raises
    ValueError or FileNotFoundError.
    """
    path = Path(text)
    if path.suffix in (".yaml", ".yml"):
        return Given(text, DataSource.load(text, overrides, split))
    if not path.exists():
        raise FileNotFoundError(
            f"{text}: no such file or folder; expected a folder of images, an .npz, a data config "
            "or a run"
        )
    if path.suffix == ".npz":
        images, statistics = has_images(path), has_statistics(path)
        if not images and not statistics:
            raise ValueError(f"{text}: holds neither images (arr_0) nor statistics (mu, sigma)")
        return Given(
            text,
            ArraySource(path) if images else None,
            read_measured(path) if statistics else None,
        )
    run = path.is_dir() and any(
        (path / name).exists() for name in ("last.ckpt", "config.yaml", "model_index.json")
    )
    if run or path.suffix == ".ckpt":
        return Given(text, _open_run(path, sampling or Sampling(), device))
    if not path.is_dir():
        raise ValueError(
            f"{text}: expected a folder of images, an .npz, a data config (.yaml) or a run"
        )
    return Given(text, FolderSource(path, num_workers))


def as_given(images: str | Path | Tensor | Given) -> Given:
    """What `open_source` reads, a tensor [N, 1 or 3, H, W] uint8, or a set opened before."""
    if isinstance(images, Given):
        return images
    if isinstance(images, Tensor):
        source = TensorSource(images)
        return Given(source.name, source)
    return open_source(str(images))


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
