"""Writes a set of generated images: PNG files, a grid, and the .npz that ADM's suite reads."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vision.diffusion.generate import generate
from vision.diffusion.load_pipeline import load_pipeline
from vision.diffusion.pipeline import DiTPipeline
from vision.environment import choose_device, torchrun_rank
from vision.errors import ConfigError
from vision.files import write_json, written
from vision.pictures import image_grid, write_png

_GRID_ROWS = 10
_MOST_COLUMNS = 10


@dataclass(frozen=True)
class SampleSettings:
    """What decides the images; a folder holds the images of one of these."""

    source: str
    ema: bool
    classes: list[int]
    count: int
    sampler: str
    steps: int
    guidance_scale: float
    guidance_channels: int | None
    guidance_interval: tuple[float, float]
    seed: int
    batch_size: int
    bf16: bool

    def label(self, index: int) -> int:
        """Classes take turns."""
        return self.classes[index % len(self.classes)]


def sample_command(
    run: str,
    out: str,
    n: int,
    classes: list[str] | None,
    cfg: float,
    cfg_channels: int | None,
    cfg_interval: list[float],
    steps: int,
    sampler: str,
    seed: int,
    batch_size: int,
    checkpoint: str,
    no_ema: bool,
    bf16: bool,
) -> SampleSettings | None:
    """What `tools/sample.py` does: load, sample, and print what came of it.

    Returns the settings in the process that finished the set, None in the others.

    Raises ConfigError for whatever the person asking can mend.
    """
    folder = Path(out)
    try:
        if min(n, batch_size) < 1:
            raise ValueError(f"--number {n} --batch-size {batch_size}: expected 1 or more")
        pipeline = load_pipeline(run, checkpoint, not no_ema, sampler)
        pipeline.to(choose_device())
        if bf16:
            pipeline.transformer.to(torch.bfloat16)
        pipeline.set_progress_bar_config(disable=True)
        every = range(pipeline.transformer.config.num_classes)
        numbers = pipeline.label_ids(_labels(classes)) if classes else list(every)
        settings = SampleSettings(
            source=str(run),
            ema=not no_ema,
            classes=numbers,
            count=n,
            sampler=sampler,
            steps=steps,
            guidance_scale=cfg,
            guidance_channels=cfg_channels,
            guidance_interval=(cfg_interval[0], cfg_interval[1]),
            seed=seed,
            batch_size=batch_size,
            bf16=bf16,
        )
        start = time.perf_counter()
        made = sample(pipeline, settings, folder)
        if made:
            print(f"seconds          {time.perf_counter() - start:.1f}")
            print(f"written          {n} images in images/, grid.png and samples.npz in {folder}")
        return settings if made else None
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error


def sample(pipeline: DiTPipeline, settings: SampleSettings, folder: Path) -> bool:
    """Make the images that `folder` lacks; True in the process that finished the set.

    With RANK and WORLD_SIZE in the environment (torchrun) each process makes every WORLD_SIZE-th
    batch. Batches are the same for any number of processes, and so is every image. A batch whose
    files are all there is not made again; files appear whole or not at all. Process 0 waits for the
    others' files, then writes grid.png and samples.npz.
    """
    rank, world = torchrun_rank()
    _claim(settings, folder, rank)
    starts = range(0, settings.count, settings.batch_size)
    for start in starts[rank::world]:
        indices = range(start, min(start + settings.batch_size, settings.count))
        if all(image_path(folder, index).exists() for index in indices):
            continue
        labels = [settings.label(index) for index in indices]
        (images,) = generate(
            pipeline,
            labels,
            indices,
            settings.seed,
            settings.batch_size,
            guidance_scale=settings.guidance_scale,
            num_inference_steps=settings.steps,
            guidance_channels=settings.guidance_channels,
            guidance_interval=settings.guidance_interval,
        )
        for index, image in zip(indices, images, strict=True):
            _write_image(image, image_path(folder, index))
    if rank != 0:
        return False
    while missing := [i for i in range(settings.count) if not image_path(folder, i).exists()]:
        if world == 1:
            raise FileNotFoundError(f"{image_path(folder, missing[0])}: vanished while sampling")
        time.sleep(0.5)
    _write_results(settings, folder)
    return True


def image_path(folder: Path, index: int) -> Path:
    """Where image `index` lies: in a folder of its own, for whoever reads all images of one."""
    return folder / "images" / f"{index:06d}.png"


def read_images(settings: SampleSettings, folder: Path) -> Tensor:
    """All images, uint8 [N, 1 or 3, H, W]."""
    images = []
    for index in range(settings.count):
        with Image.open(image_path(folder, index)) as image:
            pixels = torch.from_numpy(np.array(image))
        images.append(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))
    return torch.stack(images)


def _claim(settings: SampleSettings, folder: Path, rank: int) -> None:
    """Record the settings in `folder`. Raises ValueError where it holds images of others."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
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


def _write_results(settings: SampleSettings, folder: Path) -> None:
    images = read_images(settings, folder)
    columns = min(len(settings.classes), _MOST_COLUMNS)
    grid = image_grid(images[: columns * _GRID_ROWS], columns)
    write_png(grid, folder / "grid.png")
    labels = np.array([settings.label(i) for i in range(settings.count)], dtype=np.int64)
    write_npz(images, labels, folder / "samples.npz")


def write_npz(images: Tensor, labels: Sequence[int] | np.ndarray, path: Path) -> None:
    """ADM's layout: arr_0 uint8 [N, H, W, 3], arr_1 int64 [N]; grey images three times."""
    pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    with written(path) as temporary, temporary.open("wb") as file:
        np.savez(file, arr_0=pixels, arr_1=np.asarray(labels))


def _write_image(image: Tensor, path: Path) -> None:
    pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    with written(path) as temporary:
        Image.fromarray(pixels.numpy()).save(temporary, format="png")


def _labels(classes: list[str]) -> list[int | str]:
    """Digits are numbers of classes; everything else is a name."""
    return [int(text) if text.isdecimal() else text for text in classes]
