"""Inverse square root unit, a control of Derf (2025, https://arxiv.org/abs/2512.10938)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from vision.norms.derf import Derf
from vision.norms.kernels.ops import Kernel
from vision.norms.registry import register_norm


@register_norm("isru")
class ISRU(Derf):
    """y = w·z/sqrt(z² + 1) + b with z = a·x + s, elementwise, a and s learned scalars per layer.

    Formula and initial values are those of Derf's code, which compares other functions of this
    shape with erf; options, parameters and start values are Derf's. None of them decays.
    """

    kernel: ClassVar[Kernel] = Kernel(
        "ISRU",
        Derf.kernel.parameters,
        Derf.kernel.neutral,
        triton="vision.norms.kernels.isru_triton",
    )

    @staticmethod
    def bounded(z: Tensor) -> Tensor:
        """z/sqrt(z² + 1)."""
        # hypot, because z² overflows long before z does
        return z / torch.hypot(z, torch.ones_like(z))
