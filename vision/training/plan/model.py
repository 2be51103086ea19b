"""The model of a config without its memory: fake tensors that have shapes and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.config import Config
from vision.norms.kernels import ops
from vision.norms.registry import load_norm_module
from vision.norms.seednorm import SeeDNorm

Loss = Callable[[int], Tensor]  # images in a batch -> scalar loss


def create_model(config: Config, classes: int) -> nn.Module:
    """What the task of `config` trains, on the meta device, in training mode.

    Raises ValueError as the tasks do.
    """
    if config.norm.module is not None:
        load_norm_module(config.norm.module)
    with torch.device("meta"):
        model = _build(config, classes).train()
    if config.model.linear_probe:
        model.eval().get_submodule("head").train()
    return model


def make_fake(model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Give `model` parameters and buffers of the active FakeTensorMode, on the CPU.

    Fake tensors of the CPU and not of the meta device, because autocast knows none there. `dtype`
    replaces floating types.
    """
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            fake = torch.empty(parameter.shape, dtype=dtype or parameter.dtype)
            setattr(module, name, nn.Parameter(fake, parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            kind = dtype if dtype is not None and buffer.is_floating_point() else buffer.dtype
            setattr(module, name, torch.empty(buffer.shape, dtype=kind))


def choose_kernels(model: nn.Module, fused: bool) -> None:
    """Let SeeDNorms call the operator that they call on a GPU, or (`fused` false) their formula.

    Their own choice goes by the device, and fake tensors name the CPU. The operator's shapes are
    those of any backend.
    """
    for norm in model.modules():
        if not isinstance(norm, SeeDNorm):
            continue
        if not fused or norm.backend == "eager" or norm.dropout:
            norm.backend = "eager"
        else:
            norm.normalize_promoted = functools.partial(  # type: ignore[method-assign]
                ops.seednorm,
                alpha=norm.alpha,
                beta=norm.beta,
                gamma=norm.gamma,
                num_heads=norm.num_heads,
                eps=norm.eps,
                backend="triton",
            )


def loss_of(config: Config, model: nn.Module, classes: int) -> Loss:
    """The task's loss on a batch of any images, as a function of their number.

    Mixup, label smoothing and augmentation are left out: a thousandth of the work.
    """
    size = config.data.img_size
    shape = (config.data.in_chans, size, size)
    dtype = next(model.parameters()).dtype

    def classify(batch: int) -> Tensor:
        targets = torch.zeros(batch, dtype=torch.long)
        return F.cross_entropy(model(torch.empty(batch, *shape, dtype=dtype)), targets)

    def mae(batch: int) -> Tensor:
        return model(torch.empty(batch, *shape, dtype=dtype), config.mae.mask_ratio)[0]

    def dit(batch: int) -> Tensor:
        from vision.diffusion.objective import DiffusionObjective

        objective = DiffusionObjective(config.dit.prediction, config.dit.min_snr_gamma)
        x0, t = torch.empty(batch, *shape, dtype=dtype), torch.zeros(batch, dtype=torch.long)
        noise = torch.empty_like(x0)
        xt = objective.add_noise(x0, noise, t)
        output = model(xt, t, torch.full((batch,), classes), return_dict=False)[0]
        return objective.terms(output, x0, xt, noise, t).loss.mean()

    return {"classify": classify, "mae": mae, "dit": dit}[config.task]


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated parts: what checkpointing recomputes and FSDP gathers one at a time."""
    for name, module in model.named_modules():
        if name.endswith("blocks") and isinstance(module, (nn.Sequential, nn.ModuleList)):
            yield from module.children()


def _build(config: Config, classes: int) -> nn.Module:
    if config.task == "dit":
        from vision.models.dit import create_dit

        return create_dit(config, classes)
    if config.task == "mae":
        from vision.models.mae import create_mae

        return create_mae(config)[0]
    from vision.models.classifier import create_classifier

    return create_classifier(config, classes)[0]
