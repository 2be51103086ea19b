"""Parameter groups, optimizer and schedule from a config, through timm's factories."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from vision.config.schema import OptimConfig
from vision.errors import nearest
from vision.norms import decayed_parameters, norm_parameters


def parameter_groups(
    model: nn.Module, weight_decay: float, layer_decay: float | None
) -> list[dict[str, Any]]:
    """timm's groups, with weight decay for the parameters that a registered norm declares.

    timm decays no vector and nothing in `model.no_weight_decay()`. A norm of the registry declares
    which of its parameters take weight decay (SeeDNorm: alpha and beta): those move to a decayed
    group of the same layer scale, and its others take none, whatever their shape.
    """
    declared = getattr(model, "no_weight_decay", None)
    undecayed = norm_parameters(model) | set(declared() if declared else ())
    if layer_decay is not None:
        groups = param_groups_layer_decay(
            model, weight_decay, no_weight_decay_list=undecayed, layer_decay=layer_decay
        )
    else:
        groups = param_groups_weight_decay(model, weight_decay, no_weight_decay_list=undecayed)
    named = dict(model.named_parameters())
    decayed = {id(named[name]) for name in decayed_parameters(model)}
    result = []
    for group in groups:
        moved = [p for p in group["params"] if id(p) in decayed]
        kept = [p for p in group["params"] if id(p) not in decayed]
        if kept:
            result.append({**group, "params": kept})
        if moved:
            result.append({**group, "params": moved, "weight_decay": weight_decay})
    return result


def peak_lr(config: OptimConfig, batch_size_total: int) -> float:
    """`lr`, or `base_lr` scaled linearly by the images per optimizer step (1706.02677)."""
    return config.lr if config.base_lr is None else config.base_lr * batch_size_total / 256


def create_optimizer(
    model: nn.Module, config: OptimConfig, batch_size_total: int
) -> torch.optim.Optimizer:
    """timm's optimizer `config.opt`.

    Raises ValueError for a name that timm does not know, or settings that it cannot be made with.
    """
    known = [str(entry) for entry in list_optimizers()]
    if config.opt not in known:
        raise ValueError(
            f"optim.opt = {config.opt!r}: timm has no such optimizer; {nearest(config.opt, known)}"
        )
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    options: dict[str, Any] = {"momentum": config.momentum}
    if "adam" in config.opt or "lion" in config.opt or "lamb" in config.opt:
        options = {"betas": tuple(config.betas), "eps": config.eps}
        if "lion" in config.opt:
            del options["eps"]
    if "lars" in config.opt:
        # timm's LARS adapts the step only for decayed weights, but linear probes use no decay
        groups = [
            {**group, "params": [p], "always_adapt": p.ndim > 1}
            for group in groups
            for p in group["params"]
        ]
    try:
        return create_optimizer_v2(
            groups,
            opt=config.opt,
            lr=peak_lr(config, batch_size_total),
            weight_decay=config.weight_decay,
            **options,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"optim.opt = {config.opt!r}: cannot be made: {error}") from error


def create_schedule(
    optimizer: torch.optim.Optimizer, config: OptimConfig, steps: int, steps_per_epoch: int
) -> Scheduler:
    """Linear warm-up, then cosine (or constant) over the rest of `steps`, per optimizer step."""
    warmup = config.warmup_epochs * steps_per_epoch
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=config.sched,
        num_epochs=max(steps - warmup, 1),  # type: ignore[arg-type] # may be a fraction
        warmup_epochs=warmup,  # type: ignore[arg-type]
        warmup_lr=config.warmup_lr,
        warmup_prefix=True,
        min_lr=config.min_lr,
        step_on_epochs=False,
        updates_per_epoch=1,
    )
    return scheduler
