"""SeeDNorm's coefficient over the patches of images, as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vision.checkpoints.load_run import load_run
from vision.errors import ConfigError
from vision.evaluation.anatomy.subjects import validation_batch
from vision.files import check_writable, written
from vision.norms.convert import find_norms
from vision.norms.seednorm import SeeDNorm
from vision.text import picture_text, show

_MOST = 13  # columns of norms


def report_coefficients(path: str, images: int, output: Path) -> None:
    """Draw tanh(x·β), the mean over heads, of every patch and SeeDNorm of a trained ViT.

    A row is a validation image, a column a norm in the order of the forward pass, all on one scale
    around 0, where SeeDNorm starts. Raises ConfigError for a run that has none, or no patches.
    """
    check_writable(output)
    try:
        run = load_run(path, "classify")
        batch = validation_batch(run, images)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    model: Any = run.model
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    norms = {names[0]: n for n, names in find_norms(model).items() if isinstance(n, SeeDNorm)}
    if grid is None or not norms:
        raise ConfigError(f"--run {path}: expected a ViT with SeeDNorm, this is {run.config.name}")
    found: dict[str, Tensor] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(norm: SeeDNorm, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            patches = norm.coefficients(inputs[0]).mean(-1)[:, model.num_prefix_tokens :]  # [B, L]
            if patches.ndim == 2 and patches.shape[1] == grid[0] * grid[1]:
                found[name] = patches.unflatten(1, grid)

        return hook

    for name, norm in norms.items():
        norm.register_forward_hook(look(name))
    with torch.no_grad():
        model(batch.images)
    shown = _evenly(list(found))
    with written(output) as temporary:
        _picture(batch.images, {name: found[name] for name in shown}, path).savefig(
            temporary, dpi=110, format=output.suffix.removeprefix(".")
        )
    left = len(found) - len(shown)
    show(
        f"written  {output}: {len(batch.images)} images, {len(shown)} norms"
        + (f", evenly chosen; {left} left out" if left else "")
    )


def _evenly(names: list[str]) -> list[str]:
    if len(names) <= _MOST:
        return names
    return [names[round(i * (len(names) - 1) / (_MOST - 1))] for i in range(_MOST)]


def _picture(images: Tensor, maps: dict[str, Tensor], path: str) -> Figure:
    largest = max(float(values.abs().max()) for values in maps.values()) or 1.0
    figure = Figure(
        figsize=(1.1 * (len(maps) + 1) + 1, 1.1 * len(images) + 1), layout="constrained"
    )
    axes = figure.subplots(len(images), len(maps) + 1, squeeze=False)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    for row, image in enumerate(images.movedim(1, -1)):  # [H, W, C]
        low, high = image.min(), image.max()
        pixels = (image - low) / (high - low).clamp_min(1e-6)
        axes[row, 0].imshow(pixels[..., 0] if pixels.shape[-1] == 1 else pixels, cmap="gray")
        for axis, values in zip(axes[row, 1:], maps.values(), strict=True):
            drawn = axis.imshow(values[row], cmap="RdBu_r", vmin=-largest, vmax=largest)
    axes[0, 0].set_title("image", fontsize=7)
    for axis, name in zip(axes[0, 1:], maps, strict=True):
        axis.set_title(picture_text(name), fontsize=7)
    figure.colorbar(drawn, ax=axes, shrink=0.6, label="tanh(x·β), mean over heads")
    figure.suptitle(f"{picture_text(path)}: SeeDNorm's coefficient by patch", fontsize=9)
    return figure
