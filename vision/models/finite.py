"""Where a training broke: the first module, gradient or weight that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


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
    """Name of the first tensor with an element that is not finite; waits for the device once."""
    present = [(name, tensor) for name, tensor in named if tensor is not None]
    if not present:
        return None
    norms = torch.stack(torch._foreach_norm([t.detach() for _, t in present], float("inf")))
    bad = (~torch.isfinite(norms)).nonzero()
    return present[int(bad[0])][0] if len(bad) else None


def _tensors(output: Any) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (tuple, list)):
        for item in output:
            yield from _tensors(item)
