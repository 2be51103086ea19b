"""Encodes the images of a config with a VAE, once, into the files of `vision.datasets.latents`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from rich.progress import track
from safetensors.torch import save_file

from vision.config.schema import Config
from vision.datasets.check import check_data
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.latents import INDEX, shard_name
from vision.datasets.splits import config_splits
from vision.diffusion.fingerprint import fingerprint
from vision.diffusion.vae import encode, latent_size, load_vae
from vision.environment import choose_device
from vision.files import check_writable, write_json, written


def encode_latents(
    config: Config, vae_name: str, output: Path, shard_size: int = 10_000, batch_size: int = 32
) -> dict[str, int]:
    """Encode every split that `config.data` names; returns the number of images in each.

    Images are resized and centre-cropped to `data.img_size`, without augmentation. Existing shards
    are kept, so an interrupted run continues. Raises ValueError if `output` was begun with other
    settings or weights, or if the VAE cannot take images of that size whole; OSError if `output`
    cannot be written to.
    """
    vae = load_vae(vae_name).to(choose_device())
    latent_size(vae, config.data.img_size)
    data = _data_module(config, vae.config.in_channels, batch_size)
    counts = {}
    splits = config_splits(config.data)
    for split in splits:
        check_writable(output / split / INDEX)
    for split in splits:
        counts[split] = _encode_split(data, split, vae, vae_name, output / split, shard_size)
    return counts


def _encode_split(
    data: ImageDataModule,
    split: str,
    vae: AutoencoderKL,
    vae_name: str,
    folder: Path,
    shard_size: int,
) -> int:
    total = data.sizes[split]
    starts = range(0, total, shard_size)
    side = latent_size(vae, data.config.img_size)
    index = {
        "vae": vae_name,
        "vae_weights": fingerprint(vae),
        "source": dataclasses.asdict(data.config),
        "class_names": data.class_names,
        "shape": [vae.config.latent_channels, side, side],
        "shards": [min(shard_size, total - start) for start in starts],
    }
    _write_or_compare(folder / INDEX, index)
    for number, start in enumerate(track(starts, description=f"encode {split}")):
        path = folder / shard_name(number)
        if path.exists():
            continue
        parts = []
        for batch in data.ordered_loader(split, range(start, min(start + shard_size, total))):
            parts.append((*encode(vae, batch.images), batch.targets))
        means, stds, labels = (torch.cat(part).contiguous() for part in zip(*parts, strict=True))
        with written(path) as temporary:
            save_file({"mean": means, "std": stds, "labels": labels}, temporary)
    write_json(folder / INDEX, {**index, "complete": True})
    return total


def _write_or_compare(path: Path, index: dict[str, Any]) -> None:
    """Write the index of a split. Raises ValueError if a different one is there."""
    if not path.exists():
        write_json(path, {**index, "complete": False})
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, value in json.loads(json.dumps(index)).items():
        if found.get(key) != value:
            raise ValueError(
                f"{path.parent}: was begun with another {key}; encode into an empty folder, or "
                "with the same settings"
            )


def _data_module(config: Config, channels: int, batch_size: int) -> ImageDataModule:
    """The images of `config` as a VAE takes them: from -1 to 1."""
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
