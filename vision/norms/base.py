"""What all built-in norms share: the axis, the precision, the checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Norm(nn.Module):
    """Base class: a subclass holds its parameters and implements `normalize`.

    The input has any number of axes; the normalized one, of size `dim`, is the last, or axis 1
    with `channels_first`. The output has the input's shape and dtype. Computation is in float32
    for float16 and bfloat16 input, under autocast too, and in the input's dtype otherwise.
    Parameters may have another dtype than the input; they are cast to that of the computation.

    Channels-first norms that work row by row return channels_last strides for contiguous 4-D
    input; elementwise ones keep the input's strides.

    Attributes:
        decayed: Names of the parameters that take weight decay; none by default, because training
            recipes exclude norms from it.

    Args:
        dim: Number of channels, at least 1.
        affine: Whether the norm has its per-channel scale (and shift).
        channels_first: Normalize axis 1, as in `[B, C, H, W]`.

    Raises:
        ValueError: `dim` is not an integer of at least 1.
    """

    decayed: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, dim: int, *, affine: bool = True, channels_first: bool = False) -> None:
        super().__init__()
        if not isinstance(dim, int) or isinstance(dim, bool) or dim < 1:
            raise ValueError(f"dim must be an integer of at least 1, got {dim!r}")
        self.dim = dim
        self.affine = affine
        self.channels_first = channels_first

    def normalize(self, x: Tensor) -> Tensor:
        """Maps channels-last `x`, `[..., dim]`, float32 or float64, to the same shape and dtype."""
        raise NotImplementedError(f"{type(self).__name__} must implement normalize(x)")

    def normalize_promoted(self, x: Tensor) -> Tensor:
        """Maps channels-last `x` of any dtype to the same shape and dtype.

        A norm whose fused kernel promotes half precision by itself overrides this.
        """
        return self.normalize(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def diagnose(self, x: Tensor) -> dict[str, Tensor]:
        """Scalars that show what this norm does to the input `x` of `forward`; none by default.

        `NormDiagnostics` logs them beside the sizes of input, output, parameters and gradients.
        """
        return {}

    def reset_parameters(self) -> None:
        """Sets all parameters to their initial values."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes `x`, `[..., dim]` or, with channels_first, `[B, dim, ...]`.

        Raises:
            ValueError: the axis is missing or its size is not `dim`.
        """
        axis = 1 if self.channels_first else -1
        if x.ndim < (2 if self.channels_first else 1) or x.shape[axis] != self.dim:
            raise ValueError(
                f"{type(self).__name__} has dim {self.dim} and normalizes axis {axis}, which does "
                f"not fit input of shape {tuple(x.shape)} (channels_first={self.channels_first})"
            )
        if self.channels_first:
            return self.normalize_promoted(x.movedim(1, -1)).movedim(-1, 1)  # [B, ..., C] inside
        return self.normalize_promoted(x)

    def vector(
        self, size: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> nn.Parameter:
        """An uninitialized parameter `[size]`; `reset_parameters` fills it."""
        return nn.Parameter(torch.empty(size, device=device, dtype=dtype))

    def shown_options(self) -> dict[str, Any]:
        """Options to show in the module's printed form, beside `dim`."""
        return {}

    def extra_repr(self) -> str:
        options = dict(self.shown_options())
        if not self.affine:
            options["affine"] = False
        if self.channels_first:
            options["channels_first"] = True
        return ", ".join([str(self.dim), *(f"{key}={value}" for key, value in options.items())])


def fill(parameters: Sequence[tuple[Tensor | None, float]]) -> None:
    """Sets each parameter to one value; None stands for a parameter that the norm does not have."""
    for parameter, value in parameters:
        if parameter is not None:
            nn.init.constant_(parameter, value)


def cast(parameter: Tensor | None, x: Tensor) -> Tensor | None:
    """The parameter in the dtype of the computation, or None if there is none."""
    return None if parameter is None else parameter.to(x.dtype)


def scale_and_shift(y: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """w·y + b over the last axis, in y's dtype; without a parameter that is None."""
    if weight is not None:
        y = y * weight.to(y.dtype)
    if bias is not None:
        y = y + bias.to(y.dtype)
    return y


def check_eps(eps: float) -> float:
    """Returns `eps` if it is a positive number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(eps, str) or not 0 < eps < float("inf"):
        raise ValueError(f"eps must be a number above 0, such as 1.0e-6, got {eps!r}")
    return eps
