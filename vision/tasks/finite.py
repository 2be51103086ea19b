"""Where training diverged: the first module, gradient or weight that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm


def nonfinite_module(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The first module of `model`, in the order of computation, whose output is not finite.

    `forward` runs the model again on the batch that failed, to its end on every rank: norms may
    wait for the other ranks in it. None if every output is finite, so that the loss itself
    overflowed.
    """
    names = {module: name or type(model).__name__ for name, module in model.named_modules()}
    found: list[str] = []

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not found and not all(torch.isfinite(t).all() for t in _tensors(output)):
            found.append(f"{names[module]} ({type(module).__name__})")

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def nonfinite_tensor(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    """Name of the first tensor with an element that is not finite, or None.

    If there are sharded tensors, all ranks must call and get the same answer. Waits for the device
    once if all is finite.
    """
    present = [(name, tensor.detach()) for name, tensor in named if tensor is not None]
    sharded = any(isinstance(tensor, DTensor) for _, tensor in present)
    parts = [t.to_local() if isinstance(t, DTensor) else t for _, t in present]
    parts = [t if t.numel() else t.new_zeros(1) for t in parts]  # not every rank has a part
    if _any_rank(~torch.isfinite(get_total_norm(parts, float("inf"))), sharded):
        bad = _any_rank(torch.stack([~t.isfinite().all() for t in parts]), sharded)
        return present[int(bad.int().argmax())][0]
    return None


def _any_rank(flags: Tensor, sharded: bool) -> Tensor:
    """Flags that are set on any rank, if `sharded`; else `flags`."""
    if sharded:
        flags = flags.int()
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return flags.bool()


def _tensors(output: Any) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for item in output:
            yield from _tensors(item)
