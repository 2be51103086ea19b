"""Fused norms as operators of torch: `vision::NAME_forward` and `vision::NAME_backward`.

Registered with `torch.library`, so torch.compile and torch.export take a call as one node. A call
that nobody traces goes to the C++ kernel by way of `vision::fused_norm` (cpu/dispatch.cpp), which
saves the time of operators and of a backward in Python: more than a small call takes. Both give
the same bits.

Precision: the arithmetic is in float32 (float64 for float64 x), y has x's dtype, and gradients have
the dtype of what they belong to. Autocast changes nothing: the operators have no autocast rule, so
inputs arrive as they are, and the kernels promote while they read. Kept for the backward: x as it
came, the parameters, and per row what a kernel names.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.kernels import cpu, triton_calls

_CPU_SOURCES = Path(__file__).with_name("cpu")

KERNELS: dict[str, Kernel] = {}  # by name


class Kernel:
    """One fused norm; its plain formula, `normalize` of the layer, defines what it computes.

    Args:
        title: As it is written; in lower case it names the operators and the C++ file.
        parameters: Names of its parameters in the order of the C++ file, at most four.
        neutral: What stands for a per-channel parameter that a layer lacks.
        kept: What it keeps per row: nothing, "rms" (1/RMS), or "heads" (1/RMS and a number per
            head).
        source: The C++ file; default: that in the folder cpu/.
        triton: The module of its Triton kernel, if it has one: a `RowNorm` named NORM
            (row_norm.py).
    """

    def __init__(
        self,
        title: str,
        parameters: Sequence[str],
        neutral: Mapping[str, float],
        kept: str = "",
        source: Path | None = None,
        triton: str | None = None,
    ) -> None:
        self.title, self.name = title, title.lower()
        self.parameters, self.neutral = tuple(parameters), dict(neutral)
        self.kept_count = {"": 0, "rms": 1, "heads": 2}[kept]
        self.source = source or _CPU_SOURCES / f"{self.name}.cpp"
        self.triton = triton
        self._direct: dict[torch.dtype, int] = {}  # by `cpu.direct_kernel`
        KERNELS[self.name] = self
        self.forward, self.backward = self._register()

    def __call__(
        self,
        x: Tensor,
        *parameters: Tensor | None,
        num_heads: int = 1,
        eps: float = 0.0,
        mask: Tensor | None = None,
        keep: float = 1.0,
        backend: str,
        modulation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """The norm of `x`.

        Args:
            x: `[..., D]`, float16, bfloat16, float32 or float64, any strides.
            parameters: `[D]` or `[1]`, any floating dtype; None where one is lacking.
            num_heads: Equal parts of a row that have a coefficient each.
            eps: Added to the mean square.
            mask: `[..., H]` bool, contiguous: false where a head's coefficient is dropped. Where
                `keep` is below 1 and none is given, `draw_mask` draws it.
            keep: Probability that a coefficient is not dropped, by which the others are divided.
            backend: "triton" or "compiled"; see `choose_backend`.
            modulation: Scale and shift, `[B, 1, D]`, for x of `[B, N, D]`: the result is then
                y (1 + scale) + shift, in the same pass unless they are wider than x.

        Returns:
            `[..., D]`, contiguous, x's dtype; with a modulation the dtype that it promotes to.

        Raises:
            ValueError: the norm has no such backend.
        """
        drawn = mask is None and keep < 1
        inside = _in_dtype(modulation, x.dtype)
        if (
            backend == "compiled"
            and not _is_traced(x)
            and (direct := cpu.direct_call()) is not None
        ):
            if (kernel := self._direct.get(x.dtype)) is None:
                kernel = cpu.direct_kernel(self.title, self.source, x.dtype, self.kept_count)
                self._direct[x.dtype] = kernel
            draw = cpu.keep_mask_address() if drawn else 0
            more = (mask, draw, *(inside or ())) if draw or inside or mask is not None else ()
            y = direct(kernel, x, self._fill(x, parameters), num_heads, eps, keep, *more)
        else:
            mask = draw_mask(x, num_heads, keep) if drawn else mask
            both = inside or (None, None)
            out = self.forward(x, *parameters, mask, *both, num_heads, eps, keep, backend)
            y = out[0] if self.kept_count else out
        if modulation is None or inside is not None:
            return y
        scale, shift = modulation
        return y * (1 + scale) + shift

    def prepare(self, x: Tensor, parameters: Sequence[Tensor | None]) -> list[Tensor]:
        """The parameters as the C++ kernel reads them."""
        wide = _wide(x)
        return [p.to(wide).contiguous() for p in self._fill(x, parameters)]

    def new_kept(self, x: Tensor, num_heads: int) -> list[Tensor]:
        """Uninitialized memory for what is kept per row."""
        shapes = (x.shape[:-1], (*x.shape[:-1], num_heads))[: self.kept_count]
        return [x.new_empty(shape, dtype=_wide(x)) for shape in shapes]

    def _fill(self, x: Tensor, parameters: Sequence[Tensor | None]) -> list[Tensor]:
        """The parameters, and constants for those that are lacking."""
        return [
            _constant(self.neutral[name], x.shape[-1], _wide(x)) if p is None else p
            for name, p in zip(self.parameters, parameters, strict=True)
        ]

    def _register(self) -> tuple[Any, Any]:
        """The operators: forward gives y and what is kept, backward dx and the other gradients."""
        optional = {name: "?" if name in self.neutral else "" for name in self.parameters}
        given = ", ".join(f"Tensor{mark} {name}" for name, mark in optional.items())
        kept = "".join(("Tensor rstd, ", "Tensor heads, ")[: self.kept_count])
        more = "Tensor? mask, Tensor? mod_scale, Tensor? mod_shift"
        results = ", ".join(["Tensor"] * (1 + self.kept_count))
        name, define = f"vision::{self.name}", torch.library.custom_op
        schema = (
            f"(Tensor x, {given}, {more}, int num_heads, float eps, float keep, str backend)"
            f" -> {f'({results})' if kept else results}"
        )
        forward = define(f"{name}_forward", self._forward, mutates_args=(), schema=schema)
        schema = (
            f"(Tensor dy, Tensor x, {given}, {more}, {kept}int num_heads, "
            "float eps, float keep, str backend) -> (Tensor, Tensor, Tensor)"
        )
        backward = define(f"{name}_backward", self._backward, mutates_args=(), schema=schema)
        forward.register_fake(self._forward_fake)
        backward.register_fake(self._backward_fake)
        forward.register_autograd(self._differentiate, setup_context=self._save)
        backward.register_autograd(self._refuse)
        return forward, backward

    def _forward(self, x: Tensor, *rest: Any) -> Any:
        """y `[..., D]`, and, as far as they are kept, 1/RMS `[...]` and values `[..., H]`."""
        count = len(self.parameters)
        parameters, (mask, *both) = rest[:count], rest[count : count + 3]
        num_heads, eps, keep, backend = rest[count + 3 :]
        settings = (num_heads, eps, keep)
        if (norm := self._in_triton(backend)) is not None:
            results = triton_calls.forward(
                norm, x, self._or_number(parameters), mask, both, *settings
            )
            return results if self.kept_count else results[0]
        kept, ready = self.new_kept(x, num_heads), self.prepare(x, parameters)
        y = cpu.forward(self.source, x, ready, kept, mask, both, *settings)
        return (y, *kept) if kept else y

    def _forward_fake(self, x: Tensor, *rest: Any) -> Any:
        y, kept = x.new_empty(x.shape), self.new_kept(x, rest[len(self.parameters) + 3])
        return (y, *kept) if kept else y

    def _backward(self, dy: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        """dx `[..., D]` in x's dtype; gradients of the parameters one after the other, `[N]`; those
        of scale and shift `[2, B, D]`, or `[0]` without them."""
        count = len(self.parameters)
        parameters, (mask, *both), more = rest[:count], rest[count : count + 3], rest[count + 3 :]
        *kept, num_heads, eps, keep, backend = more
        given = (kept, mask, both, num_heads, eps, keep)
        if (norm := self._in_triton(backend)) is not None:
            return triton_calls.backward(norm, dy, x, self._or_number(parameters), *given)
        return cpu.backward(self.source, dy, x, self.prepare(x, parameters), *given)

    def _backward_fake(self, dy: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        count, wide = len(self.parameters), _wide(x)
        scale, sizes = rest[count + 1], _sizes(x, rest[:count])
        both = (0,) if scale is None else (2, scale.shape[0], x.shape[-1])
        sums = x.new_empty(sum(sizes), dtype=wide)
        return x.new_empty(x.shape), sums, x.new_empty(both, dtype=wide)

    def _or_number(self, parameters: Sequence[Tensor | None]) -> list[Tensor | float]:
        return [
            self.neutral[name] if p is None else p
            for name, p in zip(self.parameters, parameters, strict=True)
        ]

    def _save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        count = len(self.parameters)
        x, parameters = inputs[0], inputs[1 : 1 + count]
        mask, scale, shift, ctx.num_heads, ctx.eps, ctx.keep, ctx.backend = inputs[1 + count :]
        kept = output[1:] if self.kept_count else ()
        ctx.save_for_backward(x, mask, scale, shift, *kept, *parameters)
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)

    def _differentiate(self, ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * (len(self.parameters) + 8)
        x, mask, scale, shift, *rest = ctx.saved_tensors
        kept, parameters = rest[: self.kept_count], rest[self.kept_count :]
        settings = (ctx.num_heads, ctx.eps, ctx.keep, ctx.backend)
        dx, sums, both = self.backward(dy, x, *parameters, mask, scale, shift, *kept, *settings)
        gradients = [
            p if p is None else d.to(p.dtype)
            for p, d in zip(parameters, sums.split(_sizes(x, parameters)), strict=True)
        ]
        dscale, dshift = (
            t if t is None else d.view(t.shape).to(t.dtype)
            for t, d in zip((scale, shift), (None, None) if scale is None else both, strict=True)
        )
        return (dx, *gradients, None, dscale, dshift, *[None] * 4)

    def _refuse(self, ctx: Any, *_: Tensor | None) -> tuple[None, ...]:
        raise RuntimeError(
            f"the fused {self.title} has no second derivative; for one set backend: eager in the "
            "norm's options, or VISION_NORM_BACKEND=eager"
        )

    def _in_triton(self, backend: str) -> Any:
        """What has the Triton kernel's `forward` and `backward`; None for the C++ kernel."""
        valid = ["triton", "compiled"] if self.triton else ["compiled"]
        if backend not in valid:
            raise ValueError(
                f"backend {backend!r} is no kernel of {self.title}; valid: {', '.join(valid)}"
            )
        if backend != "triton":
            return None
        module = importlib.import_module(str(self.triton))
        return getattr(module, "NORM", module)


@torch.library.custom_op("vision::keep_mask", mutates_args=())
def _keep_mask(key: Tensor, shape: Sequence[int], keep: float) -> Tensor:
    return cpu.keep_mask(key, shape, keep)


@_keep_mask.register_fake
def _keep_mask_fake(key: Tensor, shape: Sequence[int], keep: float) -> Tensor:
    return key.new_empty(shape, dtype=torch.bool)


def draw_mask(x: Tensor, num_heads: int, keep: float) -> Tensor:
    """Which coefficients of `x`, `[..., D]`, dropout keeps: bool `[..., num_heads]`.

    Drawn by the generator of x's device. On the CPU that gives a key only, as drawing numbers one
    by one would cost more than the norm. cpu/dispatch.cpp does the same in a direct call.
    """
    shape = (*x.shape[:-1], num_heads)
    if x.device.type != "cpu":
        return torch.empty(shape, dtype=torch.bool, device=x.device).bernoulli_(keep)
    key = torch.randint(2**63 - 1, ())
    return _keep_mask(key, shape, keep) if _is_traced(x) else cpu.keep_mask(key, shape, keep)


def _is_traced(x: Tensor) -> bool:
    """Whether somebody records operators, and would not see a direct call."""
    return (
        torch.compiler.is_compiling()
        or type(x) not in (Tensor, nn.Parameter)
        or torch.jit.is_tracing()
    )


@cache
def _constant(value: float, dim: int, dtype: torch.dtype) -> Tensor:
    return torch.full((dim,), value, dtype=dtype)


def _sizes(x: Tensor, parameters: Sequence[Tensor | None]) -> list[int]:
    return [x.shape[-1] if p is None else p.numel() for p in parameters]


def _in_dtype(modulation: tuple[Tensor, Tensor] | None, dtype: torch.dtype) -> Any:
    """Scale and shift in x's dtype: under autocast x is float32 and a layer's output, which they
    are, bfloat16. None where there are none or they are wider than x."""
    if modulation is None:
        return None
    fits = all(t.dtype is dtype or t.dtype.itemsize < dtype.itemsize for t in modulation)
    return [t if t.dtype is dtype else t.to(dtype) for t in modulation] if fits else None


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype is torch.float64 else torch.float32
