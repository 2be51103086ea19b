"""What norms with a fused kernel share: the option `backend`, and who computes."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from vision.norms.base import Norm
from vision.norms.kernels.backend import choose_backend, requested_backend
from vision.norms.kernels.ops import Kernel


class FusedNorm(Norm):
    """A norm whose formula, `normalize`, has a kernel too.

    Attributes:
        kernel: The kernel; None in a class that changes the formula of its parent and has none.
        only_modulated: Torch has a kernel of the norm: "auto" takes ours for `modulated` alone.
        eps: Added to the mean square; 0 in a norm without one.
        backend: "triton" (GPU) or "compiled" (CPU) for the kernel, "eager" for the plain formula,
            "auto" to choose by device and dtype. The environment variable VISION_NORM_BACKEND
            overrides it.

    Args:
        dim: Number of channels.
        affine: As in `Norm`.
        channels_first: As in `Norm`.
        backend: See above.

    Raises:
        ValueError: `backend` is not available here.
    """

    kernel: ClassVar[Kernel | None] = None
    only_modulated: ClassVar[bool] = False
    eps: float = 0.0

    def __init__(self, dim: int, *, affine: bool, channels_first: bool, backend: str) -> None:
        super().__init__(dim, affine=affine, channels_first=channels_first)
        self.backend = requested_backend(backend)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "normalize" in vars(cls) and "kernel" not in vars(cls):
            cls.kernel = None

    def normalize_promoted(self, x: Tensor) -> Tensor:
        backend = self.choose(x)
        if backend == "eager":
            return super().normalize_promoted(x)
        return self.fused(x, backend)

    def modulated(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        hooks = (self._forward_pre_hooks, self._forward_hooks, self._backward_pre_hooks)
        watched = any((*hooks, self._backward_hooks))  # they see the norm's own result
        backend = "eager" if watched or self.channels_first else self.choose_modulated(x)
        if backend == "eager" or x.ndim != 3 or scale.shape != (len(x), 1, self.dim):
            return super().modulated(x, scale, shift)
        return self.fused(x, backend, (scale, shift))

    def choose(self, x: Tensor) -> str:
        """The backend for `x`: "triton", "compiled" or "eager"."""
        if self.only_modulated and self.backend == "auto":
            return "eager"
        return self.choose_modulated(x)

    def choose_modulated(self, x: Tensor) -> str:
        """The same for a norm of `x` with scale and shift, `modulated`."""
        if self.kernel is None:
            return "eager"
        return choose_backend(self.backend, x, self.dim, self.kernel)

    def fused(
        self, x: Tensor, backend: str, modulation: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The norm of channels-last `x`, any dtype, by a kernel's name, and what follows it."""
        assert self.kernel is not None
        parameters = [getattr(self, name) for name in self.kernel.parameters]
        return self.kernel(x, *parameters, eps=self.eps, backend=backend, modulation=modulation)

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.backend == "auto" else f"{text}, backend={self.backend}"
