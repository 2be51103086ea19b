"""What a masked autoencoder reconstructs, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torchvision.utils import make_grid

from vision.checkpoints.load_run import load_run
from vision.checkpoints.mae_formats import from_official
from vision.checkpoints.read import find_checkpoint, read_checkpoint, state_dict_of
from vision.config import Config
from vision.config.schema import DataConfig
from vision.datasets.image_files import image_mode, read_file
from vision.datasets.transforms import eval_transform
from vision.environment import choose_device
from vision.errors import ConfigError, CorruptImageError
from vision.files import check_writable
from vision.models.mae import MAE
from vision.pictures import check_finite, enlarge, write_png
from vision.text import show

_LEAST_WIDTH = 96  # pixels of one image in the grid; smaller images are enlarged


@torch.no_grad()
def reconstruction_grid(
    model: MAE, images: Tensor, mask_ratio: float, data: DataConfig, generator: torch.Generator
) -> Tensor:
    """Rows of original, masked and reconstructed image: [3, H, W] in 0..1.

    Raises FloatingPointError if one is not finite.

    Args:
        model: In eval mode.
        images: [B, C, H, W], normalized by the mean and std of `data`.
        mask_ratio: Fraction of the patches to remove.
        data: How the images were read.
        generator: On the CPU; draws the masks.
    """
    noise = torch.rand(len(images), model.grid**2, generator=generator).to(images.device)
    masked, filled = model.reconstruct(images, mask_ratio, noise)
    rows = torch.stack([images, masked, filled], dim=1).flatten(0, 1).float()  # [3B, C, H, W]
    check_finite(rows)
    mean, std = (torch.tensor(v, device=rows.device).view(-1, 1, 1) for v in (data.mean, data.std))
    colors = (rows * std + mean).clamp(0, 1)
    return make_grid(enlarge(colors, _LEAST_WIDTH), nrow=3, padding=4, pad_value=1.0).cpu()


def write_reconstructions(
    checkpoint: str,
    images: Sequence[str],
    output: Path,
    mask_ratio: float | None,
    seed: int,
    num_heads: int | None,
    decoder_num_heads: int,
    norm_pix_loss: bool,
) -> None:
    """What `tools/reconstruct.py` does: load, mask, reconstruct, write one PNG.

    Raises ConfigError for what the user can mend.
    """
    check_writable(output)
    try:
        if num_heads is None:
            hint = "; for a published file give --num-heads"
            run = load_run(checkpoint, "mae", hint=hint)
            model, config = cast(MAE, run.model), run.config
        else:
            model = _load_published(checkpoint, num_heads, decoder_num_heads, norm_pix_loss)
            config = Config(task="mae")
            config.data.img_size = model.grid * model.patch_size
            config.data.in_chans = model.in_chans
        ratio = config.mae.mask_ratio if mask_ratio is None else mask_ratio
        if not 1 <= int(model.grid**2 * (1 - ratio)) < model.grid**2:
            raise ValueError(
                f"--mask-ratio {ratio}: has to leave 1 to {model.grid**2 - 1} of {model.grid**2} "
                "patches"
            )
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    device = choose_device()
    inputs = torch.stack([_read(file, config.data) for file in images]).to(device)
    generator = torch.Generator().manual_seed(seed)
    grid = reconstruction_grid(model.to(device), inputs, ratio, config.data, generator)
    write_png(grid, output)
    show(f"written  {output}: {len(images)} rows of original, masked, reconstruction")
    if model.norm_pix_loss:
        show("         a hidden patch has the mean and deviation of the true one: not predicted")


def _load_published(path: str, num_heads: int, decoder_num_heads: int, norm_pix_loss: bool) -> MAE:
    """The autoencoder of a published file of encoder and decoder, in eval mode."""
    file = find_checkpoint(path)
    state = state_dict_of(read_checkpoint(file))
    if "decoder_embed.weight" not in state:
        raise ValueError(
            f"{file}: holds no decoder to reconstruct with; use the published file of encoder and "
            "decoder"
        )
    try:
        model = from_official(
            state,
            num_heads=num_heads,
            decoder_num_heads=decoder_num_heads,
            norm_pix_loss=norm_pix_loss,
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return model.eval()


def _read(file: str, data: DataConfig) -> Tensor:
    """An image prepared as in validation: [C, H, W]."""
    try:
        return eval_transform(data)(read_file(Path(file), image_mode(data.in_chans)))
    except CorruptImageError as error:
        raise ConfigError(f"{file}: not an image that can be read: {error.__cause__}") from None
