"""What a training step of a config's model costs, counted on tensors that have shapes and no data.

FLOPs are those of `torch.utils.flop_counter`: 2 per multiply and add of matrix products,
convolutions and attention, nothing for the rest. Bytes kept for the backward are those that
`torch.autograd.graph.saved_tensors_hooks` sees, parameters and buffers aside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from vision.config import Config
from vision.norms.fused import FusedNorm
from vision.norms.registry import load_norm_module
from vision.registry import TASKS

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_PRECISIONS = (*_AUTOCAST, "bf16-true", "32-true")

_aten = torch.ops.aten
FORMULAS = {  # FLOPs from shapes
    # torch counts attention on CUDA only; the backward computes the scores once more
    _aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, *_, **__: 4 * math.prod(q) * k[-2]
    ),
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda dy, q, k, *_, **__: 10 * math.prod(q) * k[-2]
    ),
    # torch 2.14 leaves the groups out of the weight's gradient
    _aten.convolution_backward: (
        lambda dy, x, w, *rest, **_: 2 * math.prod(dy) * math.prod(w[1:]) * sum(rest[-1][:2])
    ),
}


@dataclass(frozen=True)
class StepCost:
    """Forward and backward pass over one micro-batch on a GPU that holds the whole model."""

    parameters: int
    trainable: int
    largest_block: int  # parameters
    parameter_bytes: int  # of one parameter
    forward_flops: int
    backward_flops: int
    kept: int  # bytes kept for the backward
    kept_checkpointed: float  # inputs of all blocks, and what an average block keeps


def count_step(config: Config, classes: int, precision: str, images: int) -> StepCost:
    """The cost of a micro-batch of `images`; `precision` is a resolved `trainer.precision`.

    SeeDNorm counts as its fused kernel unless `norm.options.backend` is eager. Mixup, label
    smoothing and augmentation are left out: a thousandth of the work.

    Raises:
        ValueError: there are no rates for the precision, or the model cannot be built.
    """
    if precision not in _PRECISIONS:
        raise ValueError(
            f"trainer.precision = {precision!r}: a plan has no rates for it; use "
            f"{', '.join(_PRECISIONS)}"
        )
    model = create_model(config, classes)
    model.to(torch.bfloat16 if precision == "bf16-true" else None)
    forward, backward = (FlopCounterMode(display=False, custom_mapping=FORMULAS) for _ in "12")
    # storages, kept alive here: otherwise a later one could take the place of an earlier one
    kept: set[torch.UntypedStorage] = set()
    inputs: set[torch.UntypedStorage] = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage())
        return tensor

    def enter_block(block: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.update(arg.untyped_storage() for arg in args if isinstance(arg, Tensor))

    with fake_tensors():
        model = model.to_empty(device="cpu")
        use_fused_kernels(model)
        blocks = list(blocks_of(model))
        for block in blocks:
            block.register_forward_pre_hook(enter_block)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), forward:
            loss = compute_loss(config, model, images, _AUTOCAST.get(precision))
        with backward:
            loss.backward()
    tensors = [*model.parameters(), *model.buffers()]
    kept_bytes = sum(s.nbytes() for s in kept - {tensor.untyped_storage() for tensor in tensors})
    input_bytes = sum(s.nbytes() for s in inputs)
    return StepCost(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        largest_block=max((sum(p.numel() for p in b.parameters()) for b in blocks), default=0),
        parameter_bytes=tensors[0].element_size(),
        forward_flops=forward.get_total_flops(),
        backward_flops=backward.get_total_flops(),
        kept=kept_bytes,
        kept_checkpointed=input_bytes + kept_bytes / max(len(blocks), 1),
    )


def create_model(config: Config, classes: int) -> nn.Module:
    """What the task of `config` trains, on the meta device. Raises ValueError as the tasks do."""
    if config.norm.module is not None:
        load_norm_module(config.norm.module)
    with torch.device("meta"):
        return TASKS.get(config.task).create_model(config, classes)[0]


def compute_loss(
    config: Config, model: nn.Module, images: int, autocast: torch.dtype | None
) -> Tensor:
    """The mean square of the model's output, which costs as little as the losses of the tasks."""
    side, dtype = config.data.img_size, next(model.parameters()).dtype
    x = torch.empty(images, config.data.in_chans, side, side, dtype=dtype)
    zeros = torch.zeros(images, dtype=torch.long)
    more = {"dit": (zeros, zeros, False), "mae": (config.mae.mask_ratio,)}.get(config.task, ())
    with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
        output = model(x, *more)
        return (output if isinstance(output, Tensor) else output[0]).float().square().mean()


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The repeated parts: what checkpointing computes again and FSDP gathers one at a time."""
    for name, module in model.named_modules():
        if name.endswith("blocks") and isinstance(module, (nn.Sequential, nn.ModuleList)):
            yield from module.children()


@contextmanager
def fake_tensors() -> Iterator[None]:
    """New tensors have shapes and no data. They name the CPU, as autocast has no meta device.

    The one place that uses torch's private `torch._subclasses`; tried with torch 2.14.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def use_fused_kernels(model: nn.Module) -> None:
    """Let each norm do as on a GPU: its own choice goes by the device, here the CPU."""
    for norm in model.modules():
        if not isinstance(norm, FusedNorm) or norm.backend == "eager":
            continue
        if norm.kernel is None or norm.kernel.triton is None:
            norm.backend = "eager"
        else:
            norm.choose_modulated = lambda x: "triton"  # type: ignore[method-assign]
