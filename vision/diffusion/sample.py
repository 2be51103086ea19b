"""A folder of generated images: PNG files, a grid, and the .npz file that ADM's evaluation reads.

ADM: Dhariwal, Nichol 2021, https://arxiv.org/abs/2105.05233.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from vision.diffusion.fingerprint import fingerprint
from vision.diffusion.generate import Sampling, check_sampling, generate
from vision.diffusion.load_pipeline import load_pipeline
from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import sampler_name
from vision.environment import choose_device, torchrun_rank
from vision.errors import ConfigError
from vision.files import check_writable, write_json, written
from vision.notices import notice
from vision.pictures import image_grid, write_png
from vision.text import show

_GRID_ROWS = 10
_MAX_COLUMNS = 10


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Sampling):
    """Everything that the images of a folder depend on; other settings need another folder."""

    source: str
    weights: str  # fingerprint of the pipeline
    classes: list[int]
    count: int
    batch_size: int
    bf16: bool

    def label(self, index: int) -> int:
        """Class of image `index`: `classes` in turn."""
        return self.classes[index % len(self.classes)]


def sample_command(
    run: str, out: str, classes: list[str] | None, checkpoint: str, **settings: Any
) -> SampleSettings | None:
    """What `tools/sample.py` does: load, sample, print a summary.

    `run` and `checkpoint` are those of `load_pipeline`. Images of `classes` (numbers or names;
    None: all) go to `out`. `settings` are the other fields of `SampleSettings`. Returns all
    settings in the process that finished the images, None in the others. Raises ConfigError for
    anything that the user can fix.
    """
    folder, count, batch_size = Path(out), settings["count"], settings["batch_size"]
    sampler = settings.pop("sampler")
    try:
        if min(count, batch_size) < 1:
            raise ValueError(f"--number {count} --batch-size {batch_size}: expected 1 or more")
        pipeline = load_pipeline(run, checkpoint, settings["ema"], sampler)
        sampler = sampler_name(pipeline.scheduler)
        weights = fingerprint(pipeline.transformer, pipeline.vae, pipeline.scheduler)
        pipeline.to(choose_device())
        if settings["bf16"]:
            pipeline.transformer.to(torch.bfloat16)
        labels = _classes(pipeline, classes)
        start = time.perf_counter()
        chosen = SampleSettings(
            source=run, weights=weights, classes=labels, sampler=sampler, **settings
        )
        if not sample(pipeline, chosen, folder):
            return None
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    show(f"sampler          {sampler}, {chosen.num_inference_steps} steps")
    show(f"seconds          {time.perf_counter() - start:.1f}")
    show(f"written          {count} images in images/, grid.png and samples.npz in {folder}")
    return chosen


def sample(pipeline: DiTPipeline, settings: SampleSettings, folder: Path) -> bool:
    """Generate the images that `folder` lacks; True in the process that finished all of them.

    Under torchrun each process generates every `world size`-th batch; batches, and so images, are
    the same for any number of processes. A batch whose files all exist is skipped; files appear
    whole or not at all. Rank 0 waits for the other files, then writes grid.png and samples.npz.

    Raises ValueError for settings that the pipeline cannot be sampled with, FloatingPointError for
    images that are not finite, of which none of the batch is written.
    """
    rank, world_size = torchrun_rank()
    _check_sampling(pipeline, settings)
    _check_settings(settings, folder, rank)
    starts = range(0, settings.count, settings.batch_size)
    for start in starts[rank::world_size]:
        indices = range(start, min(start + settings.batch_size, settings.count))
        if all(image_path(folder, index).exists() for index in indices):
            continue
        labels = [settings.label(index) for index in indices]
        (images,) = generate(pipeline, labels, indices, settings, settings.batch_size)
        for index, image in zip(indices, images, strict=True):
            write_png(image, image_path(folder, index))
    if rank != 0:
        return False
    while missing := [i for i in range(settings.count) if not image_path(folder, i).exists()]:
        if world_size == 1:
            raise FileNotFoundError(f"{image_path(folder, missing[0])}: vanished while sampling")
        time.sleep(0.5)
    _write_summary(settings, folder)
    return True


def image_path(folder: Path, index: int) -> Path:
    """File of image `index`; all are in a folder of their own, as FID tools expect."""
    return folder / "images" / f"{index:06d}.png"


def read_images(settings: SampleSettings, folder: Path) -> Tensor:
    """All images, uint8 [N, 1 or 3, H, W]."""
    images = []
    for index in range(settings.count):
        with Image.open(image_path(folder, index)) as image:
            images.append(pil_to_tensor(image))
    return torch.stack(images)


def _classes(pipeline: DiTPipeline, given: list[str] | None) -> list[int]:
    """Numbers of the classes on the command line: digits are a number, anything else is a name."""
    labels: list[int | str] = []
    for text in given or []:
        labels.append(int(text) if text.isdecimal() else text)
        named = pipeline.labels.get(text)
        if text.isdecimal() and named not in (None, int(text)):
            notice(f"--classes {text}: taken as a number; the class named {text} is number {named}")
    return pipeline.label_ids(labels or range(pipeline.transformer.config.num_classes))


def _check_sampling(pipeline: DiTPipeline, settings: SampleSettings) -> None:
    """Raise ValueError before anything is computed or recorded."""
    channels = pipeline.transformer.config.in_channels
    if pipeline.vae is None and channels not in (1, 3):
        raise ValueError(
            f"{settings.source}: makes images of {channels} channels, and has no VAE to decode "
            "them; expected 1 or 3"
        )
    check_sampling(pipeline, settings)


def _check_settings(settings: SampleSettings, folder: Path, rank: int) -> None:
    """Record the settings in `folder`. Raises ValueError if it has images of other settings, and
    OSError if it cannot be written to."""
    for file in (image_path(folder, 0), folder / "grid.png", folder / "samples.npz"):
        check_writable(file)
    path = folder / "settings.json"
    given = json.loads(json.dumps(asdict(settings)))
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        for key, value in given.items():
            if found.get(key) != value:
                raise ValueError(
                    f"--out {folder}: holds images of {key} {found.get(key)}, asked for {value}; "
                    "choose another folder, or the same settings to continue"
                )
    elif rank == 0:
        write_json(path, given)


def _write_summary(settings: SampleSettings, folder: Path) -> None:
    """Write grid.png and samples.npz: arr_0 uint8 [N, H, W, 3], arr_1 int64 [N] (labels)."""
    images = read_images(settings, folder)
    columns = min(len(settings.classes), _MAX_COLUMNS)
    write_png(image_grid(images[: columns * _GRID_ROWS], columns), folder / "grid.png")
    pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()  # grey three times
    labels = np.array([settings.label(index) for index in range(settings.count)], dtype=np.int64)
    with written(folder / "samples.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, arr_0=pixels, arr_1=labels)
