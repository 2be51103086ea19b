"""Encodes the images of a configuration with a VAE, once, into the files of `datasets.latents`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from vision.config.schema import Config
from vision.datasets.check import check_data
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.latents import INDEX, shard_name
from vision.datasets.splits import config_splits
from vision.diffusion.vae import load_vae
from vision.environment import choose_device
from vision.files import write_json, written


def encode_latents(
    config: Config, vae_name: str, output: Path, shard_size: int = 10_000, batch_size: int = 32
) -> dict[str, int]:
    """Encode every split that `config.data` names; returns the number of images of each.

    Images are resized and centre-cropped to `data.img_size`, without other augmentation. Shards
    that are there are kept, so that a killed run continues. Raises ValueError where `output` was
    begun with other settings.
    """
    vae = load_vae(vae_name)
    vae.to(choose_device())
    data = _evaluation_data(config, vae.config.in_channels, batch_size)
    counts = {}
    for split in config_splits(config.data):
        counts[split] = _encode_split(data, split, vae, vae_name, output / split, shard_size)
    return counts


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of `images` [B, C, H, W] from -1 to 1 and of
    their mirror images, each [B, 2, c, h, w] float16, scaled as a DiT is trained on them."""
    both = torch.stack([images, images.flip(-1)], dim=1)  # [B, 2, C, H, W]
    posterior = vae.encode(both.flatten(0, 1).to(vae.device)).latent_dist
    scale, shift = vae.config.scaling_factor, vae.config.get("shift_factor") or 0.0
    parts = (posterior.mean - shift) * scale, posterior.std * scale
    mean, std = (part.unflatten(0, (-1, 2)).half().cpu() for part in parts)
    return mean, std


def _encode_split(
    data: ImageDataModule,
    split: str,
    vae: AutoencoderKL,
    vae_name: str,
    folder: Path,
    shard_size: int,
) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    total = data.sizes[split]
    sizes = [min(shard_size, total - start) for start in range(0, total, shard_size)]
    down = 2 ** (len(vae.config.block_out_channels) - 1)
    side = data.config.img_size // down
    index = {
        "vae": vae_name,
        "source": dataclasses.asdict(data.config),
        "class_names": data.class_names,
        "shape": [vae.config.latent_channels, side, side],
        "shards": sizes,
    }
    _begin(folder, index)
    for number, size in enumerate(track(sizes, description=f"encode {split}")):
        path = folder / shard_name(number)
        if path.exists():
            continue
        start = number * shard_size
        means, stds, labels = [], [], []
        for images, targets in _batches(data, split, range(start, start + size)):
            mean, std = encode(vae, images)
            means.append(mean)
            stds.append(std)
            labels.append(targets)
        tensors = {"mean": torch.cat(means), "std": torch.cat(stds), "labels": torch.cat(labels)}
        with written(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    write_json(folder / INDEX, {**index, "complete": True})
    return total


def _begin(folder: Path, index: dict[str, Any]) -> None:
    """Write the index of a split, or see that the one there is the same."""
    path = folder / INDEX
    if not path.exists():
        write_json(path, {**index, "complete": False})
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, value in json.loads(json.dumps(index)).items():
        if found[key] != value:
            raise ValueError(
                f"{folder}: was begun with another {key}; encode into an empty folder, or with "
                "the same settings"
            )


def _evaluation_data(config: Config, channels: int, batch_size: int) -> ImageDataModule:
    """The images of `config` as a VAE takes them: RGB from -1 to 1."""
    if config.data.name == "latents":
        raise ValueError("data.name = 'latents': encoded already; name a data set of images")
    half = [0.5] * channels
    data = dataclasses.replace(config.data, in_chans=channels, mean=half, std=half)
    data.crop_pct = 1.0  # the whole of the shorter side, as a DiT is trained
    data.on_corrupt = "stop"  # shards hold every image, in order
    check_data(data)
    module = ImageDataModule(data, seed=0, batch_size_total=batch_size)
    module.setup()
    return module


def _batches(data: ImageDataModule, split: str, indices: range) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in data.ordered_loader(split, indices):
        yield batch.images, batch.targets
