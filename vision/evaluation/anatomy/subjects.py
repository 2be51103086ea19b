"""The norms to measure: by name on random tokens, or those of a trained run on its images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from vision.checkpoints.load_run import LoadedRun, load_run
from vision.config.read import read_override
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import Batch
from vision.diffusion.objective import DiffusionObjective
from vision.evaluation.anatomy.measure import Anatomy, measure
from vision.models.mae import MAE
from vision.norms import Norm, create_norm, decayed_parameters
from vision.norms.convert import find_norms
from vision.norms.tokens import TokenLayout
from vision.seeding import generator_for, preserved, seed_globals

WARM_UP = 50  # training batches that running averages see before they are used
_IMAGES, _GRID, _PREFIX = 8, 8, 1  # of a batch of random tokens


def measure_named(spec: str, width: int, noise: float | None, seed: int) -> Anatomy:
    """The norm `NAME` or `NAME:key=value,...` on random tokens of RMS 1.

    Start values of parameters hide what they are for: SeeDNorm's β is 0. So those that take weight
    decay, which the input is multiplied with, are moved by normal noise. A norm that keeps running
    averages is trained on `WARM_UP` batches without changing its parameters; all are then measured
    in evaluation mode.

    Args:
        spec: Name and options, as for `create_norm`.
        width: Channels.
        noise: Standard deviation of the noise; None: 1/sqrt(width), with which a product with such
            a parameter is about as large as the input.
        seed: Of tokens, noise and initial values.

    Raises:
        ValueError: unknown norm or option, or a value that the norm cannot work with.
    """
    if noise is not None and not 0 <= noise < float("inf"):
        raise ValueError(f"--noise {noise}: expected a number of at least 0")
    name, _, options = spec.partition(":")
    pairs = [read_override(text).tree for text in options.split(",") if text]
    generator = generator_for(seed, "anatomy")
    with preserved():
        seed_globals(seed, "anatomy")
        norm = create_norm(name, width, **{k: v for pair in pairs for k, v in pair.items()})
        norm = norm.double()
        std = width**-0.5 if noise is None else noise
        x = _tokens(width, generator)
        with torch.no_grad():
            moved = decayed_parameters(norm)
            for key, parameter in norm.named_parameters():
                if key in moved:
                    parameter.add_(std * torch.randn(parameter.shape, generator=generator))
            if isinstance(norm, Norm):
                norm.layout = TokenLayout((_GRID, _GRID), _PREFIX) if norm.needs_grid else None
                _warm_up(norm, width, generator)
        return measure(spec, norm.eval(), x, generator)


def _warm_up(norm: Norm, width: int, generator: torch.Generator) -> None:
    for step in range(WARM_UP if norm.running else 0):
        norm.follow(step / WARM_UP)
        norm(_tokens(width, generator))


def _tokens(width: int, generator: torch.Generator) -> Tensor:
    """Normal tokens of images in pairs x, −x, so that a running mean is 0 and no chance offset."""
    shape = (_IMAGES // 2, _PREFIX + _GRID**2, width)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return torch.cat([x, -x])


def measure_run(path: str, images: int, seed: int) -> list[Anatomy]:
    """Every norm of a trained run, in the order of the forward pass, on its own input.

    The input is what the norm gets for some validation images, where it gets it, so that a masked
    encoder's norms see the kept patches. A norm that is called twice shows its first call.

    Args:
        path: Run directory or checkpoint.
        images: How many of the first validation images.
        seed: Of masks, or of a diffusion model's noise and timesteps.

    Raises:
        FileNotFoundError: there is no such run.
        ValueError: it is no run, or its images cannot be read.
    """
    if images < 1:
        raise ValueError(f"--images {images}: expected at least 1")
    run = load_run(path, None)
    found: dict[str, Anatomy] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            if name not in found:
                found[name] = measure(name, norm, inputs[0], generator_for(seed, "anatomy", name))

        return hook

    for norm, names in find_norms(run.model).items():
        norm.register_forward_hook(look(names[0]))
    with torch.no_grad():
        _forward(run, validation_batch(run, images), generator_for(seed, "anatomy"))
    return list(found.values())


def validation_batch(run: LoadedRun, images: int) -> Batch:
    """The first validation images of a run, as its evaluation sees them. Raises ValueError."""
    names = run.class_names or None
    data = ImageDataModule(run.config.data, seed=0, batch_size_total=images, class_names=names)
    split = run.config.data.val_split
    images = min(images, data.sizes[split])
    batch = next(iter(data.ordered_loader(split, range(images))))
    if len(batch.targets) == 0:
        raise ValueError(f"data.root = {run.config.data.root}: no image could be read")
    return batch


def _forward(run: LoadedRun, batch: Batch, generator: torch.Generator) -> Any:
    """One forward pass as in training: masked, or noised."""
    x = batch.images
    if run.config.task == "mae":
        tokens = cast(MAE, run.model).grid ** 2
        noise = torch.rand(len(x), tokens, generator=generator)
        return run.model(x, run.config.mae.mask_ratio, noise)
    if run.config.task == "dit":
        objective = DiffusionObjective()
        t = torch.randint(objective.num_timesteps, (len(x),), generator=generator)
        noisy = objective.add_noise(x, torch.randn(x.shape, generator=generator), t)
        return run.model(noisy, t, batch.targets)
    return run.model(x)
