"""Pictures of masked reconstruction: original, masked, reconstruction."""

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
from vision.models.mae import MAE
from vision.pictures import enlarge, write_png

_LEAST_WIDTH = 96  # pixels of one image in a picture: digits are enlarged


@torch.no_grad()
def picture(
    model: MAE, images: Tensor, mask_ratio: float, data: DataConfig, generator: torch.Generator
) -> Tensor:
    """Rows of original, masked and reconstructed image: [3, H, W] in 0..1.

    Args:
        model: In eval mode.
        images: [B, C, H, W], normalized as `data` says.
        mask_ratio: Share of the patches to remove.
        data: Its mean and std turn values back into colours.
        generator: On the CPU; draws the masks.
    """
    noise = torch.rand(len(images), model.grid**2, generator=generator).to(images.device)
    masked, filled = model.reconstruct(images, mask_ratio, noise)
    rows = torch.stack([images, masked, filled], dim=1).flatten(0, 1).float()  # [3B, C, H, W]
    mean, std = (torch.tensor(v, device=rows.device).view(-1, 1, 1) for v in (data.mean, data.std))
    colours = (rows * std + mean).clamp(0, 1)
    return make_grid(enlarge(colours, _LEAST_WIDTH), nrow=3, padding=4, pad_value=1.0).cpu()


def load_mae(path: str | Path, which: str = "last") -> tuple[MAE, Config]:
    """The autoencoder of an MAE run or of its .ckpt file, in eval mode, and its configuration.

    Raises FileNotFoundError or ValueError with the reason.
    """
    run = load_run(path, "mae", which, hint="; for a published file give --num-heads")
    return cast(MAE, run.model), run.config


def load_published(
    path: str | Path, num_heads: int, decoder_num_heads: int, norm_pix_loss: bool
) -> tuple[MAE, Config]:
    """The autoencoder of a published file with a decoder, and a configuration for its images.

    Raises FileNotFoundError or ValueError with the reason.
    """
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
    config = Config(task="mae")
    config.data.img_size, config.data.in_chans = model.grid * model.patch_size, model.in_chans
    return model.eval(), config


def draw(
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

    Raises ConfigError for whatever the person asking can mend.
    """
    try:
        if num_heads is None:
            model, config = load_mae(checkpoint)
        else:
            model, config = load_published(checkpoint, num_heads, decoder_num_heads, norm_pix_loss)
        ratio = config.mae.mask_ratio if mask_ratio is None else mask_ratio
        if not 1 <= int(model.grid**2 * (1 - ratio)) < model.grid**2:
            raise ValueError(f"--mask-ratio {ratio}: of {model.grid**2} patches some must stay")
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    device = choose_device()
    inputs = torch.stack([_read(file, config.data) for file in images]).to(device)
    generator = torch.Generator().manual_seed(seed)
    grid = picture(model.to(device), inputs, ratio, config.data, generator)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_png(grid, output)
    print(f"written  {output}: {len(images)} rows of original, masked, reconstruction")


def _read(file: str, data: DataConfig) -> Tensor:
    """An image as the model's validation images were read: [C, H, W]."""
    try:
        return eval_transform(data)(read_file(Path(file), image_mode(data.in_chans)))
    except CorruptImageError as error:
        raise ConfigError(f"{file}: not an image that can be read: {error.__cause__}") from None
