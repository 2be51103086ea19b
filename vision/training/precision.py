"""In which floating-point formats a run computes, by `trainer.precision`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pytorch_lightning.plugins.precision import HalfPrecision
from torch import nn

from vision.config.schema import TrainerConfig


def precision_options(precision: str) -> dict[str, Any]:
    """The arguments of Lightning's Trainer for a resolved precision."""
    if precision == "bf16-true":
        return {"plugins": [HalfModel("bf16-true")]}
    return {"precision": precision}


def resolve_precision(precision: str) -> str:
    """`auto`: bf16 autocast where CUDA has it in hardware, float32 elsewhere."""
    if precision != "auto":
        return precision
    fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if fast else "32-true"


def check_precision(trainer: TrainerConfig) -> None:
    """Raise ValueError for a precision that the device of this machine does not have."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and accelerator is None)
    if trainer.precision == "16-mixed" and on_cpu:
        raise ValueError(
            "trainer.precision = '16-mixed': float16 is not trained on a CPU; use bf16-mixed or "
            "32-true, or a GPU"
        )


class HalfModel(HalfPrecision):
    """The trained model in half precision; its average, metrics and sums stay in float32.

    Lightning's own plugin converts them too, and most steps of an average are smaller than the
    last bit of bfloat16. It also makes half precision the default of new tensors, so that tables
    and random numbers are rounded where nobody asked for it.
    """

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Convert `module.model`."""
        module.get_submodule("model").to(torch.bfloat16)
        return module

    def forward_context(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Nothing: the model's weights say what is computed in which format."""
        return nullcontext()
