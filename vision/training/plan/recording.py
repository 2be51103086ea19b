"""What is known of a training step, as straight lines in the number of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Line(NamedTuple):
    """constant + each x images."""

    constant: float
    each: float

    def at(self, images: float) -> float:
        """The value for a number of images."""
        return self.constant + self.each * images


class Kernel(NamedTuple):
    """Work that starts as one: FLOPs, bytes, the rate that bounds its FLOPs (a name of
    `hardware.FIGURES`, attention_ before it, or grouped), and where it is in the step."""

    flops: Line
    bytes: Line
    rate: str
    backward: bool
    in_block: bool


@dataclass(frozen=True)
class Recording:
    """What is known of a model and its step, for one precision. Bytes, per GPU where not sharded.

    `activations` are kept for the backward; `block_inputs` and `block` (the largest) are parts of
    them that count when blocks are checkpointed, `outside` is what no block keeps.
    """

    parameters: int
    trainable: int
    largest_block: int  # parameters of the largest block
    weight_bytes: int  # bytes of one parameter
    kernels: Mapping[Kernel, int]  # how many of each
    fused: Mapping[Kernel, int]  # the same if runs of other operators were fused
    activations: Line
    outside: Line
    block_inputs: Line
    block: Line

    def flops(self, backward: bool) -> float:
        """FLOPs of the forward or backward pass for one image."""
        return sum(n * k.flops.each for k, n in self.kernels.items() if k.backward == backward)

    def deeper(self, fewer: Recording, more: Recording, times: int) -> Recording:
        """This with `times` more blocks, such as `more` has one more of than `fewer`."""
        changes: dict[str, Any] = {}
        for entry in dataclasses.fields(self):
            mine, less, plus = (getattr(r, entry.name) for r in (self, fewer, more))
            if isinstance(mine, Line):
                parts = zip(mine, less, plus, strict=True)
                changes[entry.name] = Line(*(m + times * (p - n) for m, n, p in parts))
            elif isinstance(mine, Mapping):
                count = {k: times * (plus.get(k, 0) - less.get(k, 0)) for k in {**plus, **less}}
                both = {k: mine.get(k, 0) + count.get(k, 0) for k in {**mine, **count}}
                changes[entry.name] = {k: n for k, n in both.items() if n}
            else:
                changes[entry.name] = mine + times * (plus - less)
        return dataclasses.replace(self, **changes)
