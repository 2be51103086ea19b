"""Training steps of our models against plain ones of timm's layers with nn.LayerNorm.

The plain DiT and MAE are written as their papers describe them (vision/benchmark/plain.py), the
plain ViT is timm's. Both get the same images, noise and masks and the same AdamW, and take turns in
every round; ratios are medians over the rounds. Peak memory is that of a process of its own,
without what its libraries take.

    OMP_NUM_THREADS=2 python tools/benchmark.py peers --json runs/peers.json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.benchmark import command_line
from vision.benchmark.command_line import report, step_columns
from vision.benchmark.memory import peak_in_new_process
from vision.benchmark.models import chosen_norms
from vision.benchmark.plain import PlainDiT, PlainMAE
from vision.benchmark.steps import CLASSES, StepSettings, create, random_batch
from vision.benchmark.timing import Work, compare_times
from vision.config import Config
from vision.diffusion.objective import DiffusionObjective
from vision.environment import choose_device
from vision.errors import nearest
from vision.models.dit import dit_size

PLAIN = "plain"
PEERS = {
    peer.model: peer
    for peer in (
        StepSettings("DiT-S/4", "dit", "dit_s_4", batch=16, img_size=32, in_chans=4),
        StepSettings("MAE-S", "mae", "vit_small_patch16_224", batch=8),
        StepSettings("ViT-B/224", "classify", "vit_base_patch16_224", batch=4),
    )
}
# model -> loss [] of a step, on what both get
Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class PeerResult:
    """One norm of ours in one model, or the plain model; ratios are to the plain model."""

    model: str
    batch: int
    dtype: str
    norm: str  # "plain": the plain model
    step: float  # seconds, median
    peak_bytes: int
    step_ratio: float
    peak_ratio: float


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    command_line.add_arguments(parser, batch=None, rounds=10)
    add = parser.add_argument
    add("--models", nargs="+", default=list(PEERS), metavar="MODEL", help=", ".join(PEERS))
    add("--norms", nargs="+", default=["layernorm", "seednorm", "dyt"], metavar="NORM")


def run(arguments: Namespace) -> None:
    """Measure, print and write. Raises ValueError for what is not known, before the first step."""
    device, dtype = choose_device(arguments.device), getattr(torch, arguments.dtype)
    if "all" in arguments.norms:
        raise ValueError("--norms all: they would all be in memory; name a few, or take models")
    chosen_norms(arguments.norms)  # or a ValueError
    for name in arguments.models:
        if name not in PEERS:
            raise ValueError(f"--models {name}: {nearest(name, list(PEERS))}")
    results: list[PeerResult] = []
    for name in arguments.models:
        settings = replace(PEERS[name], batch=arguments.batch or PEERS[name].batch)
        results += benchmark_peer(settings, arguments.norms, arguments.rounds, device, dtype)
    columns = step_columns(lambda r: f"{r.model}, batch {r.batch}", lambda r: r.norm, "plain")
    report(results, columns, arguments.json, text_columns=2)


def benchmark_peer(
    settings: StepSettings,
    norms: Sequence[str],
    rounds: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[PeerResult]:
    """Measure the plain model and ours with each of `norms`, in turn."""
    labels = [PLAIN, *norms]
    make = partial(make_step, settings, device=device, dtype=dtype)
    peaks = {label: peak_in_new_process(make, label, device=device) for label in labels}
    times = compare_times({label: make(label) for label in labels}, device, rounds)
    kind = settings.model, settings.batch, str(dtype).removeprefix("torch.")
    for label in labels:
        time, peak = times[label], peaks[label]
        yield PeerResult(*kind, label, time.seconds, peak, time.ratio, peak / peaks[PLAIN])


def make_step(settings: StepSettings, label: str, device: torch.device, dtype: torch.dtype) -> Work:
    """A function that trains one step of the plain model, or of ours with the norm `label`."""
    torch.manual_seed(0)
    model, loss = make_model(settings, label), make_loss(settings, device)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            value = loss(model)
        value.backward()
        optimizer.step()

    return step


def make_model(settings: StepSettings, label: str) -> nn.Module:
    """The plain model, or ours with the norm `label`."""
    if label != PLAIN:
        norm, norm_options = chosen_norms([label])[label]
        return create(settings, norm, False, norm_options).model
    size, channels, own = settings.img_size, settings.in_chans, settings.model_options
    if settings.task == "dit":
        sizes = {**dit_size(settings.name), **own}
        widths = sizes["embed_dim"], sizes["depth"], sizes["num_heads"]
        return PlainDiT(size, channels, sizes["patch_size"], *widths, classes=CLASSES)
    options: dict[str, Any] = {"num_classes": CLASSES, "img_size": size, **own}
    vit: Any = timm.create_model(settings.name, in_chans=channels, **options)
    if settings.task == "classify":
        return vit
    mae = Config().mae
    decoder = mae.decoder_embed_dim, mae.decoder_depth, mae.decoder_num_heads
    encoder = vit.embed_dim, len(vit.blocks), vit.blocks[0].attn.num_heads
    patch = vit.patch_embed.patch_size[0]
    return PlainMAE(size, channels, patch, encoder, decoder, mae.norm_pix_loss)


def make_loss(settings: StepSettings, device: torch.device) -> Loss:
    """The loss of the task, on random images, labels, noise and masks."""
    task = create(settings, "layernorm", False)
    images, targets, *_, draws = random_batch(settings, task, device)
    if settings.task == "classify":
        return lambda model: F.cross_entropy(model(images), targets)
    if settings.task == "mae":

        def masked(model: nn.Module) -> Tensor:
            ratio = task.config.mae.mask_ratio
            if isinstance(model, PlainMAE):
                return model(images, draws[0], ratio)
            return model(images, ratio, draws[0])[0]

        return masked
    objective = DiffusionObjective()
    noise, t, _ = draws
    noisy = objective.add_noise(images, noise, t)

    def denoised(model: nn.Module) -> Tensor:
        if isinstance(model, PlainDiT):
            output = model(noisy, t, targets)
        else:
            output = model(noisy, t, targets, return_dict=False)[0]
        return objective.terms(output, images, noisy, noise, t).loss.mean()

    return denoised
