"""SeeDNorm as an operator of torch: `vision::seednorm_forward` and `vision::seednorm_backward`.

Registered with `torch.library`, so torch.compile and torch.export take a call as one node. The
formula and its gradients are those of `vision.norms.seednorm`; what computes them is the argument
`backend`, a name from `vision.norms.kernels.backend`.

Precision: the arithmetic is in float32 (float64 for float64 x), y has x's dtype, and gradients have
the dtype of what they belong to. Autocast changes nothing: the operators have no autocast rule, so
inputs arrive as they are, and the kernels promote while they read. Kept for the backward: x as it
came, the parameters, 1/RMS per row and a tanh value per head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vision.norms.kernels import seednorm_cpu


def seednorm(
    x: Tensor,
    alpha: Tensor,
    beta: Tensor,
    gamma: Tensor | None,
    num_heads: int = 1,
    eps: float = 1e-6,
    *,
    backend: str,
) -> Tensor:
    """[tanh(x·β)·α + γ] ⊙ x/RMS(x), fused.

    Args:
        x: `[..., D]`, float16, bfloat16, float32 or float64, any strides.
        alpha: `[D]`, any floating dtype, as all parameters.
        beta: `[D]`.
        gamma: `[D]`; None stands for ones.
        num_heads: Parts into which x, α and β are cut, each with a tanh value of its own.
        eps: Added to the mean square.
        backend: "triton" or "compiled"; see `choose_backend`.

    Returns:
        `[..., D]`, contiguous, x's dtype.

    Raises:
        ValueError: `backend` is neither.
    """
    return _forward(x, alpha, beta, gamma, num_heads, eps, backend)[0]


@torch.library.custom_op("vision::seednorm_forward", mutates_args=())
def _forward(
    x: Tensor,
    alpha: Tensor,
    beta: Tensor,
    gamma: Tensor | None,
    num_heads: int,
    eps: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """y `[..., D]`, 1/RMS `[...]`, tanh values `[..., H]`."""
    kernel, parameters = _kernel(backend, x, alpha, beta, gamma)
    y, rstd, s = kernel.forward(_rows(x), *parameters, num_heads, eps)
    return y.view(x.shape), rstd.view(x.shape[:-1]), s.view(*x.shape[:-1], num_heads)


@_forward.register_fake
def _(x: Tensor, alpha: Tensor, beta: Tensor, gamma: Any, num_heads: int, *_: Any) -> Any:
    wide, rows = _wide(x), x.shape[:-1]
    empty = x.new_empty
    return empty(x.shape), empty(rows, dtype=wide), empty((*rows, num_heads), dtype=wide)


@torch.library.custom_op("vision::seednorm_backward", mutates_args=())
def _backward(
    dy: Tensor,
    x: Tensor,
    alpha: Tensor,
    beta: Tensor,
    gamma: Tensor | None,
    rstd: Tensor,
    s: Tensor,
    num_heads: int,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """dx `[..., D]` in x's dtype; gradients of alpha, beta, gamma as one `[3, D]`, as s."""
    kernel, parameters = _kernel(backend, x, alpha, beta, gamma)
    rows = _rows(x)
    kept = rstd.view(-1), s.view(len(rows), num_heads)
    dx, sums = kernel.backward(_rows(dy), rows, *parameters, *kept, num_heads)
    return dx.view(x.shape), sums


@_backward.register_fake
def _(dy: Tensor, x: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty((3, x.shape[-1]), dtype=_wide(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, alpha, beta, gamma, ctx.num_heads, _, ctx.backend = inputs
    ctx.save_for_backward(x, alpha, beta, gamma, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 7
    x, alpha, beta, gamma, rstd, s = ctx.saved_tensors
    dx, sums = _backward(dy, x, alpha, beta, gamma, rstd, s, ctx.num_heads, ctx.backend)
    dalpha, dbeta, dgamma = sums.unbind()
    gradients = (dx, dalpha.to(alpha.dtype), dbeta.to(beta.dtype))
    return (*gradients, None if gamma is None else dgamma.to(gamma.dtype), None, None, None)


def _refuse(ctx: Any, *_: Tensor | None) -> tuple[None, ...]:
    raise RuntimeError(
        "the fused SeeDNorm has no second derivative; for one set backend: eager in the norm's "
        "options, or VISION_NORM_BACKEND=eager"
    )


_forward.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse)


def _kernel(backend: str, x: Tensor, *parameters: Tensor | None) -> tuple[Any, list[Any]]:
    """The module whose `forward` and `backward` compute, and the parameters as it reads them."""
    given = [p if p is None else p.detach().contiguous() for p in parameters]
    if backend == "compiled":
        return seednorm_cpu, [p if p is None else p.to(_wide(x)) for p in given]
    if backend == "triton":
        from vision.norms.kernels import seednorm_triton  # triton is optional

        return seednorm_triton, given
    raise ValueError(f"backend {backend!r} is no kernel; valid: triton, compiled")


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _rows(x: Tensor) -> Tensor:
    """`[R, D]` with the last axis contiguous: a view where strides allow one, otherwise a copy."""
    dim = x.shape[-1]
    rows = x.detach().reshape(x.numel() // dim, dim)
    return rows if rows.stride(1) == 1 or dim == 1 else rows.contiguous()
