"""Parameter groups, optimizer and schedule from a config, through timm's factories."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import (
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from vision.config.schema import OptimConfig
from vision.errors import first_line, nearest
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
    if config.base_lr is not None:
        return config.base_lr * batch_size_total / 256
    if config.lr is None:
        raise ValueError("optim.lr = None: expected a learning rate, here or in optim.base_lr")
    return config.lr


def create_optimizer(
    model: nn.Module, config: OptimConfig, batch_size_total: int, fused: bool = True
) -> torch.optim.Optimizer:
    """timm's optimizer `config.opt`.

    `fused`: one pass over each parameter, where the optimizer is torch's Adam or AdamW. Not where
    a GradScaler scales the loss: such an optimizer unscales gradients only after they are clipped.

    Raises ValueError for a name that timm does not know, settings that it does not take, or an
    optimizer that cannot be made here or not train in this loop.
    """
    known = [str(entry) for entry in list_optimizers()]
    if config.opt not in known:
        raise ValueError(
            f"optim.opt = {config.opt!r}: timm has no such optimizer; {nearest(config.opt, known)}"
        )
    options = _options(config)
    groups = parameter_groups(model, config.weight_decay, config.layer_decay)
    if fused and config.opt in ("adam", "adamw"):
        options["fused"] = True
    if "lars" in config.opt:
        # timm's LARS adapts the step only for decayed weights, but linear probes use no decay
        groups = [
            {**group, "params": [p], "always_adapt": p.ndim > 1}
            for group in groups
            for p in group["params"]
        ]
    lr = peak_lr(config, batch_size_total)
    try:
        return create_optimizer_v2(
            groups, opt=config.opt, lr=lr, weight_decay=config.weight_decay, **options
        )
    except Exception as error:  # of a package that is missing or wants another device
        raise ValueError(
            f"optim.opt = {config.opt!r}: cannot be made here ({first_line(error)}); take "
            "another, such as adamw"
        ) from error


def _options(config: OptimConfig) -> dict[str, Any]:
    """What is given of `betas`, `eps` and `momentum`, by timm's table of what optimizers take.

    Raises ValueError, naming the key, for what `config.opt` does not take.
    """
    info = get_optimizer_info(config.opt)
    if info.second_order:
        raise ValueError(
            f"optim.opt = {config.opt!r}: needs second derivatives, which are not computed here; "
            "take another, such as adamw"
        )
    takes = {"betas": info.has_betas, "eps": info.has_eps, "momentum": info.has_momentum}
    given = {key: value for key in takes if (value := getattr(config, key)) is not None}
    for key, value in given.items():
        if not takes[key]:
            names = ", ".join(name for name, taken in takes.items() if taken)
            raise ValueError(
                f"optim.{key} = {value!r}: {config.opt} takes no {key}, but {names}; set it to null"
            )
    if "betas" in given:
        if len(given["betas"]) != info.num_betas:
            raise ValueError(
                f"optim.betas = {config.betas!r}: {config.opt} takes {info.num_betas} numbers"
            )
        given["betas"] = tuple(given["betas"])
    return given


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
