"""Images as a VAE's latents, encoded once: files, reader, and random draws for training.

ROOT/SPLIT/index.json describes the split; shard_00000.safetensors and so on hold, for n images
in order, `mean` and `std` [n, 2, C, h, w] float16 (the image and its mirror image, scaled by the
VAE's scaling_factor) and `labels` [n] int64.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.utils.data import Dataset

from vision.config import load_config
from vision.config.load import Source
from vision.config.schema import DataConfig
from vision.datasets.dataset import Sample
from vision.datasets.reader import Reader
from vision.datasets.sampler import Draw
from vision.datasets.splits import find_latents
from vision.seeding import derive_seed

INDEX = "index.json"


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard_{number:05d}.safetensors"


def encoded_images(config: DataConfig) -> DataConfig:
    """What the latents of the train split were made from, prepared as it was then."""
    path = find_latents(config, config.train_split) / INDEX
    source = json.loads(path.read_text(encoding="utf-8"))["source"]
    return load_config([], (), [Source(str(path), {"data": source}, {})]).config.data


class LatentReader(Reader):
    """One split. Raises ValueError where it is incomplete or does not have the configured size."""

    def __init__(self, config: DataConfig, split: str) -> None:
        folder = find_latents(config, split)
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        shape = [config.in_chans, config.img_size, config.img_size]
        if index["shape"] != shape:
            raise ValueError(
                f"data.img_size = {config.img_size}: latents in {folder} are {index['shape']}, "
                f"expected {shape}; set data.in_chans and data.img_size to theirs"
            )
        if not index["complete"]:
            raise ValueError(
                f"data.root = {config.root!r}: {folder} is not finished; run the same "
                "tools/encode_latents.py again, it continues where it stopped"
            )
        self.folder = folder
        self.class_names = index["class_names"]
        self.image_size = (config.img_size, config.img_size)
        self._ends = list(accumulate(index["shards"]))  # images up to and with each shard
        self._files: dict[int, Any] = {}
        shards = range(len(self._ends))
        self.labels: list[int] = [
            label for shard in shards for label in self._open(shard).get_tensor("labels").tolist()
        ]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """((mean, std), each [2, C, h, w] float16; class)."""
        shard = bisect.bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        file = self._open(shard)
        parts = tuple(file.get_slice(name)[row] for name in ("mean", "std"))
        return parts, self.labels[index]

    def filename(self, index: int) -> str:
        """The shard that holds it."""
        return str(self.folder / shard_name(bisect.bisect_right(self._ends, index)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}}  # open files are not sent to workers

    def _open(self, shard: int) -> Any:
        if shard not in self._files:
            path = self.folder / shard_name(shard)
            try:
                self._files[shard] = safe_open(path, "pt")
            except (SafetensorError, FileNotFoundError) as error:
                raise ValueError(
                    f"data.root: {path}: cannot be read ({error}); delete it and run "
                    "tools/encode_latents.py again"
                ) from error
        return self._files[shard]


@dataclass(eq=False)
class LatentDataset(Dataset[Sample]):
    """Draws of latents, [C, h, w] float32: mean + std * noise of the image or its mirror image.

    Noise and mirroring depend on (seed, epoch, index) only.
    """

    reader: Any  # a `LatentReader` or a view of one
    seed: int
    hflip: float  # probability of the mirror image

    def __len__(self) -> int:
        return len(self.reader)

    def __getitem__(self, draw: Draw) -> Sample:
        (means, stds), label = self.reader[draw.index]
        key = derive_seed(self.seed, "latent", draw.epoch, draw.index)
        generator = torch.Generator().manual_seed(key)
        flip = int(torch.rand((), generator=generator) < self.hflip)
        mean, std = means[flip].float(), stds[flip].float()
        noise = torch.randn(mean.shape, generator=generator)
        return Sample(mean + std * noise, label, draw.index, 0)

    def __getitems__(self, draws: Sequence[Draw]) -> list[Sample]:
        """A batch."""
        return [self[draw] for draw in draws]
