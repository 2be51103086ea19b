"""Where a training broke: the first module, gradient or weight that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class _Found(Exception):
    """Carries the name of a module out of the forward pass."""


def nonfinite_module(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The first module of `model`, in the order of computation, whose output is not finite.

    `forward` runs the model again, on the batch that went wrong. None where every module's output
    is finite, so that the loss itself overflowed.
    """
    names = {module: name or type(model).__name__ for name, module in model.named_modules()}

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if not all(torch.isfinite(t).all() for t in _tensors(output)):
            raise _Found(f"{names[module]} ({type(module).__name__})")

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            forward()
    except _Found as found:
        return str(found)
    finally:
        for hook in hooks:
            hook.remove()
    return None


def nonfinite_tensor(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    """Name of the first tensor with an element that is not finite; waits for the device once.

    Of sharded tensors each process looks at its part, and all must call: the answer is the same.
    """
    present = [(name, tensor.detach()) for name, tensor in named if tensor is not None]
    if not present:
        return None
    sharded = any(isinstance(tensor, DTensor) for _, tensor in present)
    parts = [t.to_local() if isinstance(t, DTensor) else t for _, t in present]
    parts = [t if t.numel() else t.new_zeros(1) for t in parts]  # a small one has no part for all
    bad = ~torch.isfinite(torch.stack(torch._foreach_norm(parts, float("inf"))))
    if sharded:
        flags = bad.int()
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        bad = flags.bool()
    found = bad.nonzero()
    return present[int(found[0])][0] if len(found) else None


def _tensors(output: Any) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for item in output:
            yield from _tensors(item)
