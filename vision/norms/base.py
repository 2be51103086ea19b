"""What all built-in norms share: the axis, the precision, the checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.norms.tokens import TokenLayout, TokenMoments


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
        mixes_tokens: Statistics run over the tokens of an image (see `tokens.as_tokens`).
        running: Statistics run over the batch, of all processes; buffers keep averages of them,
            in float32 at least, which evaluation uses.
        needs_grid: The norm asks where tokens stand and reads it from `layout`.
        exact_gradient: The backward pass computes the derivative; some norms approximate it, with
            averages of past gradients.
        contains_activation: The norm takes the place of a norm and an activation next to it.
        scale_name: Its parameter that multiplies the output per channel; need not exist.
        shift_name: Its parameter that is added to the output per channel; need not exist.
        branches: Prefixes of the scale and shift that other branches of the norm have; they take
            over an old norm's too.
        layout: Places of the model's tokens, set by `convert_norms`; None where there is no grid.

    Args:
        dim: Number of channels, at least 1.
        affine: Whether the norm has its per-channel scale (and shift).
        channels_first: Normalize axis 1, as in `[B, C, H, W]`.

    Raises:
        ValueError: `dim` is not an integer of at least 1.
    """

    decayed: ClassVar[frozenset[str]] = frozenset()
    mixes_tokens: ClassVar[bool] = False
    running: ClassVar[bool] = False
    needs_grid: ClassVar[bool] = False
    exact_gradient: ClassVar[bool] = True
    contains_activation: ClassVar[bool] = False
    scale_name: ClassVar[str] = "weight"
    shift_name: ClassVar[str] = "bias"
    branches: ClassVar[tuple[str, ...]] = ()
    layout: TokenLayout | None = None

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

    def candidates(self, tokens: TokenMoments) -> list[dict[str, Any]]:
        """Values for its other parameters and buffers, by name, that `calibrate` is to try.

        For each it fits scale and shift by least squares, and takes the best. The default is to
        leave them as they are; a norm with running averages has to say how it sets them, and
        without candidates it cannot be calibrated.
        """
        return [] if self.running else [{}]

    def follow(self, progress: float) -> None:
        """Told before each training step how much of the run is done, 0 to 1, for schedules."""

    def enter_block(self, drop_path_rate: float | None) -> None:
        """Told, when it is placed in a model, the drop-path rate of the block it stands in.

        0 outside of blocks, None in a model whose blocks have no drop path. Raises ValueError
        where an option of the norm needs one.
        """

    @classmethod
    def remark(cls, norms: Sequence[Norm]) -> str:
        """What the line at the start of a run adds about `norms`, all those of this class."""
        return ""

    def reset_parameters(self) -> None:
        """Sets all parameters and buffers to their initial values."""

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

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """norm(x) · (1 + scale) + shift, the adaptive norm of diffusion transformers.

        Args:
            x: `[B, N, dim]`.
            scale: `[B, 1, dim]`.
            shift: `[B, 1, dim]`.
        """
        y = self(x)
        if scale.dtype.itemsize < y.dtype.itemsize:  # under autocast: 1 + scale as exact as y
            scale = scale.to(y.dtype)
        return y * (1 + scale) + shift

    def vector(
        self, size: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> nn.Parameter:
        """An uninitialized parameter `[size]`; `reset_parameters` fills it."""
        return nn.Parameter(torch.empty(size, device=device, dtype=dtype))

    def matrix(
        self, rows: int, columns: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> nn.Parameter:
        """An uninitialized parameter `[rows, columns]`; `reset_parameters` fills it."""
        return nn.Parameter(torch.empty(rows, columns, device=device, dtype=dtype))

    def average(
        self, *shape: int, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> nn.Buffer:
        """An uninitialized running average, float32 at least; `reset_parameters` fills it."""
        wide = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        return nn.Buffer(torch.empty(shape, device=device, dtype=wide))

    def shown_options(self) -> dict[str, Any]:
        """Options to show in the module's printed form, beside `dim`."""
        return {}

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Norm:
        """`.to(...)` and its like: running averages stay in float32 at least, as small steps would
        be lost in less."""
        averages = {
            n: b for n, b in self._buffers.items() if b is not None and b.is_floating_point()
        }
        super()._apply(fn, recurse)
        for name, before in averages.items():
            now = self._buffers[name]
            if now is not None and now.dtype.itemsize < before.dtype.itemsize <= 4:
                self._buffers[name] = before.to(now.device)
        return self

    def extra_repr(self) -> str:
        options = dict(self.shown_options())
        if not self.affine:
            options["affine"] = False
        if self.channels_first:
            options["channels_first"] = True
        return ", ".join([str(self.dim), *(f"{key}={value}" for key, value in options.items())])


def remarks(norms: Iterable[nn.Module]) -> tuple[str, ...]:
    """The `remark` of each class among `norms` that has one."""
    classes: dict[type[Norm], list[Norm]] = {}
    for norm in norms:
        if isinstance(norm, Norm):
            classes.setdefault(type(norm), []).append(norm)
    return tuple(filter(None, (cls.remark(group) for cls, group in classes.items())))


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


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x·weightᵀ + bias over the last axis, in x's dtype, under autocast too."""
    with exact(x):
        return F.linear(x, weight.to(x.dtype), cast(bias, x))


def exact(x: Tensor) -> torch.autocast:
    """Within it, autocast leaves products on x's device in their dtype."""
    device = "cpu" if x.is_meta else x.device.type  # autocast knows no meta device
    return torch.autocast(device, enabled=False)


def check_eps(eps: float) -> float:
    """Returns `eps` if it is a positive number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(eps, str) or not 0 < eps < float("inf"):
        raise ValueError(f"eps must be a number above 0, such as 1.0e-6, got {eps!r}")
    return eps
