"""One training step taken with fake tensors: its kernels, and what it keeps for the backward.

FLOPs are torch's (torch.utils.flop_counter): 2 per multiply and add of matrix products,
convolutions and attention; the rest counts as none. Bytes of a kernel are those of the distinct
tensors that it reads and writes. Both are straight lines in the number of images, found by
recording two batch sizes; so are they in the number of blocks of a transformer, which is
recorded with two and with three of them. The first has no drop path and the others have.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vision.config import Config
from vision.training.plan.listen import Op, StepListener
from vision.training.plan.model import blocks_of, choose_kernels, create_model, loss_of, make_fake
from vision.training.plan.recording import Kernel, Line, Recording

_BATCHES = (2, 4)  # a batch norm needs two images


def record(config: Config, classes: int, precision: str, gpu_kernels: bool = True) -> Recording:
    """A step of `config` in `precision` ("bf16-mixed", "16-mixed", "bf16-true" or "32-true").

    `gpu_kernels`: SeeDNorm as its fused kernel; otherwise as its plain formula. Raises ValueError
    for another precision or what the model cannot be built of.
    """
    if precision not in ("bf16-mixed", "16-mixed", "bf16-true", "32-true"):
        raise ValueError(
            f"trainer.precision = {precision!r}: a plan knows no rates for it; take bf16-mixed, "
            "16-mixed, bf16-true or 32-true"
        )
    depths = _depths(config, create_model(config, classes))
    if not depths:
        return _record(config, classes, precision, gpu_kernels)
    shallow = {key: min(depth, 2) for key, depth in depths.items()}
    fewer = _record(_with_depths(config, shallow), classes, precision, gpu_kernels)
    total = fewer
    for key, depth in depths.items():
        if depth > 2:
            deeper = _with_depths(config, {**shallow, key: 3})
            more = _record(deeper, classes, precision, gpu_kernels)
            total = total.deeper(fewer, more, depth - 2)
    return total


def _depths(config: Config, model: nn.Module) -> dict[str, int]:
    """Keys of the config that say how many equal blocks there are, and how many there are."""
    encoder = getattr(model, "encoder", model)
    if not isinstance(encoder, VisionTransformer) and config.task != "dit":
        return {}
    depths = {"model.depth": len(list(encoder.get_submodule("blocks").children()))}
    if config.task == "mae":
        depths["mae.decoder_depth"] = config.mae.decoder_depth
    return depths


def _with_depths(config: Config, depths: dict[str, int]) -> Config:
    changed = copy.deepcopy(config)
    for key, depth in depths.items():
        section, name = key.split(".")
        setattr(getattr(changed, section), name, depth)
    return changed


def _record(config: Config, classes: int, precision: str, gpu_kernels: bool) -> Recording:
    model = create_model(config, classes)
    blocks = [sum(p.numel() for p in block.parameters()) for block in blocks_of(model)]
    true = torch.bfloat16 if precision == "bf16-true" else None
    with FakeTensorMode():
        make_fake(model, true)
        choose_kernels(model, gpu_kernels)
        loss = loss_of(config, model, classes)
        one, two = (_take_step(model, loss, images, precision) for images in _BATCHES)
    parameters = list(model.parameters())
    return Recording(
        parameters=sum(p.numel() for p in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        largest_block=max(blocks, default=0),
        weight_bytes=2 if true else 4,
        kernels=_lines(*(_each(step.ops) for step in (one, two))),
        fused=_lines(*(_fuse(step.ops) for step in (one, two))),
        **_kept(one, two),
    )


def _take_step(model: nn.Module, loss: Any, images: int, precision: str) -> StepListener:
    step = StepListener(keep=(*model.parameters(), *model.buffers()))
    low = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    with ExitStack() as stack:
        stack.enter_context(step)
        stack.enter_context(step.watch(model))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(step.pack, lambda t: t))
        with torch.autocast("cpu", low or torch.bfloat16, enabled=low is not None):
            value = loss(images)
        step.backward = True
        value.backward()
    model.zero_grad()
    return step


def _kept(one: StepListener, two: StepListener) -> dict[str, Line]:
    """Bytes kept for the backward, as `Recording` splits them."""
    sums = []
    for step in (one, two):
        inside = dict.fromkeys(step.inputs, 0)
        outside = 0
        for size, block in step.saved.values():
            if block is None:
                outside += size
            else:
                inside[block] += size
        largest = max(inside.values(), default=0)
        total = outside + sum(inside.values())
        starts = sum(size for block, size in step.inputs.items() if inside[block])
        sums.append((total, outside, starts, largest))
    names = ("activations", "outside", "block_inputs", "block")
    return {name: _line(a, b) for name, a, b in zip(names, *sums, strict=True)}


def _each(ops: list[Op]) -> list[tuple[Op, int]]:
    """Every operator a kernel, with its bytes."""
    return [(op, sum(op.reads.values()) + sum(op.writes.values())) for op in ops]


def _fuse(ops: list[Op]) -> list[tuple[Op, int]]:
    """Runs of operators between two that cannot be fused as one kernel each, with its bytes.

    It reads what it did not make, and writes what others read, or nobody (a gradient): the least
    that a compiler can reach with such a fusion.
    """
    runs: list[list[Op]] = []
    for op in ops:
        joins = runs and not op.alone and not runs[-1][-1].alone
        if joins and runs[-1][-1].backward == op.backward:
            runs[-1].append(op)
        else:
            runs.append([op])
    uses: dict[int, int] = {}
    for op in ops:
        for key in op.reads:
            uses[key] = uses.get(key, 0) + 1
    result = []
    for run in runs:
        reads: dict[int, int] = {}
        made: dict[int, int] = {}
        inner: dict[int, int] = {}
        for op in run:
            for key, size in op.reads.items():
                if key in made:
                    inner[key] = inner.get(key, 0) + 1
                else:
                    reads[key] = max(size, reads.get(key, 0))
            made |= op.writes
        written = [n for k, n in made.items() if not 0 < uses.get(k, 0) <= inner.get(k, 0)]
        result.append((run[0], sum(reads.values()) + sum(written)))
    return result


def _lines(one: list[tuple[Op, int]], two: list[tuple[Op, int]]) -> Mapping[Kernel, int]:
    """The kernels of two batch sizes as straight lines in the number of images."""
    pairs = zip(one, two, strict=True)
    return Counter(
        Kernel(_line(a.flops, b.flops), _line(m, n), a.rate, a.backward, a.in_block)
        for (a, m), (b, n) in pairs
    )


def _line(one: float, two: float) -> Line:
    each = (two - one) / (_BATCHES[1] - _BATCHES[0])
    return Line(one - each * _BATCHES[0], each)
