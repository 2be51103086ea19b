"""The autoencoder between images and the latents that a DiT can be trained on."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from diffusers import AutoencoderKL

from vision.config import Config
from vision.datasets.latents import INDEX


def vae_name(config: Config) -> str:
    """`dit.vae`, or the VAE that the latents in `data.root` were encoded with.

    Raises FileNotFoundError if neither says.
    """
    if config.dit.vae is not None:
        return config.dit.vae
    index = Path(config.data.root or "") / config.data.train_split / INDEX
    if not index.is_file():
        raise FileNotFoundError(f"dit.vae = null: and no {index} that names it; set dit.vae")
    return json.loads(index.read_text(encoding="utf-8"))["vae"]


@functools.lru_cache(maxsize=1)
def load_vae(name: str) -> AutoencoderKL:
    """An AutoencoderKL of the Hugging Face hub or a folder, in eval mode. Raises ValueError."""
    try:
        return AutoencoderKL.from_pretrained(name).requires_grad_(False).eval()
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"dit.vae = {name!r}: no AutoencoderKL there ({reason})") from error
