"""The autoencoder between images and latents, which are scaled as a DiT is trained on them."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.utils import is_accelerate_available
from torch import Tensor

from vision.checkpoints.read import check_finite
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
        vae = AutoencoderKL.from_pretrained(name, low_cpu_mem_usage=is_accelerate_available())
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"dit.vae = {name!r}: no AutoencoderKL there ({reason})") from error
    check_finite(vae.state_dict(), f"dit.vae = {name!r}")
    return vae.requires_grad_(False).eval()


def latent_size(vae: AutoencoderKL, img_size: int) -> int:
    """Side of the latents of images with sides of `img_size` pixels.

    Raises ValueError, with the nearest sizes, where the VAE would leave pixels out.
    """
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    if img_size % factor:
        low = max(img_size // factor, 1) * factor
        raise ValueError(
            f"data.img_size = {img_size}: the VAE makes one latent pixel of {factor}x{factor} and "
            f"would leave the rest out; nearest: {low} or {low + factor}"
        )
    return img_size // factor


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents of `images` [B, C, H, W] from -1 to 1 and of
    their mirror images, each [B, 2, c, h, w] float16 on the CPU.

    Raises ValueError for a size that is no multiple of the VAE's factor, FloatingPointError where
    a latent is not finite, in float16.
    """
    for side in images.shape[-2:]:
        latent_size(vae, side)
    both = torch.stack([images, images.flip(-1)], dim=1)  # [B, 2, C, H, W]
    posterior = vae.encode(both.flatten(0, 1).to(vae.device)).latent_dist
    scale, shift = _scale_and_shift(vae)
    parts = (posterior.mean - shift) * scale, posterior.std * scale
    mean, std = (part.unflatten(0, (-1, 2)).half().cpu() for part in parts)
    finite = (torch.isfinite(mean) & torch.isfinite(std)).flatten(1).all(1)
    if not finite.all():
        raise FloatingPointError(
            f"latents of {int((~finite).sum())} of {len(finite)} images are not finite in float16: "
            "they are not written; look at the VAE's weights and its scaling_factor "
            f"({scale:g})"
        )
    return mean, std


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Images [B, C, H, W] float32 around -1 to 1 of `latents` [B, c, h, w]."""
    scale, shift = _scale_and_shift(vae)
    return vae.decode((latents / scale + shift).to(vae.dtype)).sample.float()


def _scale_and_shift(vae: AutoencoderKL) -> tuple[float, float]:
    return vae.config.scaling_factor, vae.config.get("shift_factor") or 0.0
