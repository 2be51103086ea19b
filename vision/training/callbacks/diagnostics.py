"""What the norms do in training: size of inputs and outputs, coefficients, gradients."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vision.norms.base import Norm
from vision.training.callbacks.metrics_csv import MetricsCSV


class NormDiagnostics(pl.Callback):
    """Writes `diagnostics.csv`, a row every n steps.

    Columns are `LAYER/METRIC`: `input_rms` and `output_rms`; the norm's own metrics
    (`Norm.diagnose`: SeeDNorm's coefficient, the saturation of DyT and Derf); `norm_P` and
    `grad_norm_P` for each parameter P. Between these steps nothing is hooked or computed.
    """

    def __init__(self, path: Path, every_n_steps: int, resume_step: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self.table = MetricsCSV(path, resume_step)
        self._row: dict[str, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hook the norms if the step is due; of accumulated batches the last one counts."""
        if trainer.global_step % self.every_n_steps == 0:
            for name, norm in _norms(pl_module.get_submodule("model")):
                self._hooks.append(norm.register_forward_hook(partial(self._look, name)))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compute norms of parameters and unclipped gradients, and write the row; all ranks."""
        if not self._hooks:
            return
        for name, norm in _norms(pl_module.get_submodule("model")):
            for key, parameter in norm.named_parameters(recurse=False):
                self._row[f"{name}/norm_{key}"] = _norm_of(parameter.detach())
                if parameter.grad is not None:
                    self._row[f"{name}/grad_norm_{key}"] = _norm_of(parameter.grad)
        values = torch.stack([v.float() for v in self._row.values()]).tolist()  # waits once
        self.table.log_metrics(dict(zip(self._row, values, strict=True)), trainer.global_step)
        self._row.clear()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def on_save_checkpoint(self, *arguments: Any) -> None:
        """A kill after this checkpoint must not lose the rows before it."""
        self.table.save()

    def on_train_end(self, *arguments: Any) -> None:
        """Write the last rows."""
        self.table.save()

    @torch.no_grad()
    def _look(self, name: str, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach()
        self._row[f"{name}/input_rms"] = x.float().square().mean().sqrt()
        self._row[f"{name}/output_rms"] = output.detach().float().square().mean().sqrt()
        if isinstance(norm, Norm):
            for key, value in norm.diagnose(x).items():
                self._row[f"{name}/{key}"] = value


def _norm_of(tensor: Tensor) -> Tensor:
    norm = tensor.norm()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (Norm, nn.LayerNorm, nn.RMSNorm)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
