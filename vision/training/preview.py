"""The first training images as a model will see them, as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vision.config.schema import Config
from vision.files import check_writable, written
from vision.text import picture_text, show
from vision.training.train import open_data

_INCHES = 1.5  # of an image
_COLUMNS = 8


def write_preview(config: Config, number: int, output: Path) -> None:
    """Draw the first `number` images of the first epoch, augmented, with their classes.

    They are those that training with this configuration reads first, before mixup and cutmix, which
    pair images. Colours beyond 0 to 1 are cut off.

    Raises:
        ValueError: the data cannot be opened, or are latents, which are no images.
    """
    check_writable(output)
    data, _ = open_data(config)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (config.data.mean, config.data.std))
    shown = list(_first(data.train_dataloader(), number))
    if len(shown[0][0]) not in (1, 3):
        raise ValueError(f"data.root = {config.data.root}: latents, of which there is no preview")
    rows = math.ceil(len(shown) / _COLUMNS)
    figure = Figure(
        figsize=(_INCHES * _COLUMNS, (_INCHES + 0.3) * rows + 0.5), layout="constrained"
    )
    axes = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    for axis, (image, target) in zip(axes, shown, strict=False):
        colours = (image * std + mean).clamp(0, 1).movedim(0, -1)  # [H, W, C]
        grey = colours.shape[-1] == 1
        axis.imshow(colours[..., 0] if grey else colours, cmap="gray", vmin=0, vmax=1)
        axis.set_title(picture_text(_short(data.class_names[target])), fontsize=8)
    size = "x".join(str(n) for n in shown[0][0].shape[1:])
    figure.suptitle(f"{picture_text(data.describe())}; as trained on, {size}", fontsize=9)
    with written(output) as temporary:
        figure.savefig(temporary, dpi=120, format=output.suffix.removeprefix(".") or "png")
    show(f"written  {output}: the first {len(shown)} training images")
    if config.mix.mixup or config.mix.cutmix:
        show("         without mixup and cutmix, which mix.mixup and mix.cutmix turn on")


def _first(loader: object, number: int) -> Iterator[tuple[Tensor, int]]:
    left = number
    for batch in loader:  # type: ignore[attr-defined]
        for image, target in zip(batch.images[:left], batch.targets[:left], strict=True):
            yield image, int(target)
        left -= len(batch.images)
        if left <= 0:
            return


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
