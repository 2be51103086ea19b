"""What the norms do while a model trains: sizes of inputs and outputs, coefficients, gradients."""

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
    """Writes `diagnostics.csv`: at each n-th step one column per norm and figure.

    Columns are `LAYER/FIGURE`: `input_rms` and `output_rms`, what the norm tells of itself
    (`Norm.diagnose`: SeeDNorm's coefficient, the saturation of DyT and Derf), and `norm_P`,
    `grad_norm_P` for each parameter P. Between those steps nothing is hooked or computed.
    """

    def __init__(self, path: Path, every_n_steps: int, resume_step: int | None = None) -> None:
        self.every_n_steps = every_n_steps
        self.table = MetricsCSV(path, resume_step)
        self._figures: dict[str, Tensor] = {}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Hook the norms where the step is due; of an accumulated batch the last part counts."""
        if trainer.global_step % self.every_n_steps == 0:  # norms of sharded weights take all
            for name, norm in _norms(pl_module.get_submodule("model")):
                self._hooks.append(norm.register_forward_hook(partial(self._look, name)))

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take the parameters' and gradients' norms, before clipping, and write the row."""
        if not self._hooks:
            return
        for name, norm in _norms(pl_module.get_submodule("model")):
            for key, parameter in norm.named_parameters(recurse=False):
                self._figures[f"{name}/norm_{key}"] = _norm_of(parameter.detach())
                if parameter.grad is not None:
                    self._figures[f"{name}/grad_norm_{key}"] = _norm_of(parameter.grad)
        values = torch.stack([v.float() for v in self._figures.values()]).tolist()  # waits once
        self.table.log_metrics(dict(zip(self._figures, values, strict=True)), trainer.global_step)
        self._figures.clear()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Leave the norms as they were."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def on_save_checkpoint(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """The rows up to a checkpoint must not be lost with a process killed next."""
        self.table.save()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is left."""
        self.table.save()

    @torch.no_grad()
    def _look(self, name: str, norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach()
        self._figures[f"{name}/input_rms"] = x.float().square().mean().sqrt()
        self._figures[f"{name}/output_rms"] = output.detach().float().square().mean().sqrt()
        if isinstance(norm, Norm):
            for key, value in norm.diagnose(x).items():
                self._figures[f"{name}/{key}"] = value


def _norm_of(tensor: Tensor) -> Tensor:
    norm = tensor.norm()
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (Norm, nn.LayerNorm, nn.RMSNorm)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
