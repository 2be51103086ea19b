"""Listens to a training step: every operator, what autograd keeps, and which block computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vision.training.plan.model import blocks_of

_aten = torch.ops.aten
# what CPU tensors call the operators that torch counts on CUDA
FLOPS = {
    **flop_registry,
    _aten._scaled_dot_product_flash_attention_for_cpu: flop_registry[
        _aten._scaled_dot_product_flash_attention
    ],
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}


class Op(NamedTuple):
    """One operator that did something. Bytes of a storage are those that it touched."""

    flops: int
    rate: str
    alone: bool  # a compiler cannot fuse it
    reads: dict[int, int]  # storage -> bytes
    writes: dict[int, int]
    backward: bool
    in_block: bool


@dataclass
class StepListener(TorchDispatchMode):
    """Listens to all operators, and to what autograd keeps."""

    keep: tuple[Tensor, ...] = ()  # parameters and buffers, which are in memory anyway
    ops: list[Op] = field(default_factory=list)
    backward: bool = False
    block: int | None = None
    saved: dict[int, tuple[int, int | None]] = field(default_factory=dict)  # -> bytes, block
    inputs: dict[int, int] = field(default_factory=dict)  # block -> bytes
    alive: list[Tensor] = field(default_factory=list)  # so that no storage's number comes twice

    def __post_init__(self) -> None:
        super().__init__()
        self.resident = {_key(t) for t in self.keep}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "prim":  # a question about a tensor
            return result
        before = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        after = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        self.alive += after
        inputs = {_key(t) for t in before}
        makes = func._schema.is_mutable or any(_key(t) not in inputs for t in after)
        if makes and "empty" not in func.__name__:
            self._add(func, args, kwargs or {}, result, before, after)
        return result

    def _add(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        before: list[Tensor],
        after: list[Tensor],
    ) -> None:
        flops = _flops(func, args, kwargs, result)
        op = Op(
            flops,
            _rate(func, args, before),
            flops > 0 or func.namespace == "vision",
            _sizes(before),
            _sizes(after),
            self.backward,
            self.block is not None,
        )
        self.ops.append(op)

    def pack(self, tensor: Tensor) -> Tensor:
        """Count what autograd keeps, once per storage."""
        key = _key(tensor)
        if key not in self.resident and key not in self.saved:
            self.alive.append(tensor)
            self.saved[key] = (tensor.untyped_storage().nbytes(), self.block)
        return tensor

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Know which block computes."""

        def enter(number: int, args: Any) -> None:
            self.block = number
            self.inputs[number] = sum(_sizes([t for t in args if isinstance(t, Tensor)]).values())

        def leave() -> None:
            self.block = None

        handles = []
        for number, block in enumerate(blocks_of(model)):
            handles += [
                block.register_forward_pre_hook(lambda _, args, n=number: enter(n, args)),
                block.register_forward_hook(lambda *_: leave()),
            ]
        yield
        for handle in handles:
            handle.remove()


def _flops(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """FLOPs of an operator, as torch counts them where it counts right."""
    if func._overloadpacket is _aten.convolution_backward and args[9] > 1:
        # torch leaves the groups out of the weight's gradient. Input's and weight's cost each what
        # the forward does: for every output all weights of its channel
        grad, _, weight = args[:3]
        return 2 * grad.numel() * weight[0].numel() * sum(map(bool, args[10][:2]))
    count = FLOPS.get(func._overloadpacket)
    return int(count(*args, **kwargs, out_val=result)) if count else 0


def _rate(func: Any, args: tuple[Any, ...], inputs: list[Tensor]) -> str:
    """What bounds the FLOPs of an operator."""
    name = func.__name__
    low = inputs and inputs[0].dtype in (torch.bfloat16, torch.float16)
    peak = "bf16" if low else "tf32"
    if "attention" in name:
        return f"attention_{peak}"
    groups = {"convolution": 8, "convolution_backward": 9}.get(name.split(".")[0])
    if groups is not None and args[groups] > 1:
        return "grouped"
    return peak


def _sizes(tensors: list[Tensor]) -> dict[int, int]:
    """Bytes of each storage that tensors see; an expanded one is no larger than its storage."""
    sizes: dict[int, int] = {}
    for tensor in tensors:
        held = tensor.untyped_storage().nbytes()
        seen = min(tensor.numel() * tensor.element_size(), held)
        key = _key(tensor)
        sizes[key] = max(seen, sizes.get(key, 0))
    return sizes


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
