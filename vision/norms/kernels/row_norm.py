"""A norm on the Triton skeleton: launches the kernels of rows_triton.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from vision.norms.kernels.rows_triton import backward_kernel, forward_kernel
from vision.norms.kernels.triton_config import LaunchConfig, backward_config, forward_config

_WIDE = {torch.float64: tl.float64}  # precision of the arithmetic; float32 for all others
_WAVE = 64 if torch.version.hip else 32


@dataclass(frozen=True)
class Rows:
    """What a call computes with beside x; tensors on x's device.

    Attributes:
        parameters: At most four, in the layer's order: `[D]` or, a learned scalar, `[1]`,
            contiguous, any floating dtype. A number where one is lacking.
        num_heads: Equal parts of a row.
        mask: `[R, H]` bool, contiguous: false where dropout drops a head's coefficient.
        keep: Probability that it does not.
        scale: `[S, D]`, last axis contiguous, where y (1 + scale) + shift is wanted: R/S adjacent
            rows are one sample's.
        shift: The same.
    """

    parameters: Sequence[Tensor | float]
    num_heads: int = 1
    mask: Tensor | None = None
    keep: float = 1.0
    scale: Tensor | None = None
    shift: Tensor | None = None


@dataclass(frozen=True)
class RowNorm:
    """A norm in Triton; `ops.Kernel` finds it as `NORM` in the module that it names.

    Attributes:
        forward_function: y of a tile; see rows_triton.py.
        backward_function: Its derivative.
        statistics: Numbers of rows and heads that both need; None in an elementwise norm.
        per_head: Whether those of heads are kept too.
    """

    forward_function: Any
    backward_function: Any
    statistics: Any = None
    per_head: bool = False

    @property
    def kept(self) -> int:
        """0, or 1 where numbers of rows are kept for the backward, or 2 with those of heads."""
        return 0 if self.statistics is None else 1 + self.per_head

    def forward(self, x: Tensor, given: Rows, eps: float) -> tuple[Tensor, ...]:
        """y `[R, D]` in x's dtype, and where they are kept numbers of rows `[R]` and heads
        `[R, H]`, float32 (float64 for it).

        Args:
            x: `[R, D]` of any row stride, its last axis contiguous.
            given: What belongs to it.
            eps: Added to the mean square.
        """
        rows, dim = x.shape
        y, wide = torch.empty_like(x, memory_format=torch.contiguous_format), _wide(x)
        kept = [x.new_empty(s, dtype=wide) for s in ((rows,), (rows, given.num_heads))]
        kept = kept[: self.kept]
        if rows:
            config = forward_config(dim, given.num_heads, _WAVE)
            scale, shift = given.scale, given.shift
            with _device_of(x):
                forward_kernel[(triton.cdiv(rows, config.rows),)](
                    *(x, y, *_pointers(x, given, kept), _or(scale, x), _or(shift, x)),
                    *(rows, _tokens(x, given), x.stride(0), _stride(scale), _stride(shift)),
                    STATISTICS=self.statistics,
                    EPS=eps,
                    **self._constants(x, given, config),
                )
        return y, *kept

    def backward(
        self, dy: Tensor, x: Tensor, given: Rows, kept: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """dx `[R, D]`, the parameters' gradients one after the other, `[N]`, and, with a
        modulation, those of scale and shift `[2, S, D]`; all but dx in the dtype of `kept`."""
        (rows, dim), count = x.shape, len(given.parameters)
        dx = torch.empty_like(x, memory_format=torch.contiguous_format)
        config = backward_config(dim, given.num_heads, x.device, _WAVE)
        samples = 1 if given.scale is None else len(given.scale)
        # whole samples, so that a program's sums of scale and shift are of one only
        tokens = _tokens(x, given)
        parts = min(triton.cdiv(tokens, config.rows), max(1, config.programs // max(1, samples)))
        vectors = count + (0 if given.scale is None else 2)
        make = torch.empty if rows and config.in_registers else torch.zeros
        partial = make(samples, max(1, parts), vectors, dim, dtype=_wide(x), device=x.device)
        if rows:
            with _device_of(x):
                backward_kernel[(samples * parts,)](
                    *(x, dy, dx, *_pointers(x, given, kept), _or(given.scale, x), partial),
                    *(rows, tokens, parts, x.stride(0), dy.stride(0), _stride(given.scale)),
                    BACKWARD=self.backward_function,
                    COUNT=count,
                    PREFETCH=config.prefetch,
                    IN_REGISTERS=config.in_registers,
                    **self._constants(x, given, config),
                )
        total = partial[:, :, :count].sum((0, 1))
        sums = [
            t.sum(0, keepdim=True) if _kind(p) == "scalar" else t
            for p, t in zip(given.parameters, total, strict=True)
        ]
        if given.scale is None:
            return dx, torch.cat(sums), None
        return dx, torch.cat(sums), partial[:, :, count:].sum(1).transpose(0, 1).contiguous()

    def _constants(self, x: Tensor, given: Rows, config: LaunchConfig) -> dict[str, Any]:
        width = x.shape[1] // given.num_heads
        kinds = [_kind(p) for p in given.parameters]
        kinds += [0.0] * (4 - len(kinds))
        return {
            **{f"KIND{k}": kind for k, kind in enumerate(kinds)},
            "FORWARD": self.forward_function,
            "KEPT": self.kept,
            "MASKED": given.mask is not None,
            "MODULATED": given.scale is not None,
            "HEADS": given.num_heads,
            "WIDTH": width,
            "WIDE": _WIDE.get(x.dtype, tl.float32),
            "R": config.rows,
            "H": triton.next_power_of_2(given.num_heads),
            "W": triton.next_power_of_2(width),
            "num_warps": config.warps,
        }


def _pointers(x: Tensor, given: Rows, kept: Sequence[Tensor]) -> list[Tensor]:
    """The arguments from P0 to UNDROPPED; x stands for what is not read."""
    parameters = [p if isinstance(p, Tensor) else x for p in given.parameters]
    pointers = [*parameters, *[x] * (4 - len(parameters)), *kept, *[x] * (2 - len(kept))]
    if given.mask is None:
        return [*pointers, x, x]
    # in memory, not an argument: those are float32, and each value of a constant is compiled
    return [*pointers, given.mask, x.new_full((1,), 1 / given.keep, dtype=_wide(x))]


def _kind(parameter: Tensor | float) -> str | float:
    """How `rows_triton._parameter` reads it."""
    if not isinstance(parameter, Tensor):
        return parameter
    return "scalar" if parameter.numel() == 1 else "channels"


def _tokens(x: Tensor, given: Rows) -> int:
    """Rows of a sample; all of them where nothing is modulated."""
    return len(x) if given.scale is None else len(x) // max(1, len(given.scale))


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _or(given: Tensor | None, unread: Tensor) -> Tensor:
    return unread if given is None else given


def _stride(rows: Tensor | None) -> int:
    return 0 if rows is None else rows.stride(0)
