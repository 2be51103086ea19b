"""Training on several devices: Lightning's strategies by name, and one for sharded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from vision.checkpoints.archive import previous_of
from vision.checkpoints.sharded import (
    is_sharded,
    put_back,
    save_sharded,
    take_out,
    tensor_name,
)
from vision.config.schema import TrainerConfig


def make_strategy(options: TrainerConfig) -> str | Strategy:
    """The `strategy` argument of Lightning's Trainer."""
    if options.strategy != "fsdp":
        return options.strategy
    return ShardedStrategy(options.devices * options.num_nodes, options.sharded_checkpoint)


def launched_by() -> list[ClusterEnvironment]:
    """SLURM (under srun) without Lightning's signal handlers; empty: Lightning finds it."""
    if SLURMEnvironment.detect() and not TorchElasticEnvironment.detect():
        return [SLURMEnvironment(auto_requeue=False)]
    return []


class ShardedStrategy(ModelParallelStrategy):
    """Fully sharded data parallel: torch's `fully_shard` (FSDP2), on CUDA and on the CPU.

    Weights, gradients and optimizer state are split over all processes. A checkpoint is a single
    file, the same as a run on one device writes, or, with `sharded_checkpoint`, the folder of
    `vision.checkpoints.sharded`. Either resumes with any strategy and any number of processes.

    Lightning's own checkpoints of this strategy promise less. The single file numbers optimizer
    state by the model's parameters, where other strategies number it by the optimizer's, so that it
    resumes only here; the folder is written in place, over the last good one, with no checksums,
    and its `.metadata` is a pickle.
    """

    def __init__(self, world_size: int, sharded_checkpoint: bool = False) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1)
        self.sharded_checkpoint = sharded_checkpoint

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None
    ) -> None:
        """Write the file or the folder. Raises UnwritableError."""
        path = Path(self.broadcast(filepath))
        if self.sharded_checkpoint:
            save_sharded(checkpoint, path, previous_of(path))
            return
        rest, sharded = take_out(checkpoint)
        whole = put_back(rest, {name: self._whole(tensor) for name, tensor in sharded.items()})
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(whole, path)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        """The checkpoint, without running code in it; of a folder, each process reads its part."""
        path = Path(checkpoint_path)
        if not is_sharded(path):
            return self.checkpoint_io.load_checkpoint(path)
        like = {tensor_name("weights", k): v for k, v in self._module.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            numbered = enumerate(_parameters(optimizer))
            like |= {tensor_name("optimizer", i, number): p for number, p in numbered}
        return self.checkpoint_io.load_checkpoint(path, like=like)  # type: ignore[call-arg]

    def load_model_state_dict(self, checkpoint: Any, strict: bool = True) -> None:
        own = self._module.state_dict()
        state = {k: _split(v, own.get(k)) for k, v in checkpoint["state_dict"].items()}
        self._module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = _parameters(optimizer)
            state = {
                number: {key: _split(value, parameters[number]) for key, value in values.items()}
                for number, values in saved["state"].items()
            }
            optimizer.load_state_dict({**saved, "state": state})

    @property
    def _module(self) -> pl.LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

    def _whole(self, tensor: DTensor) -> Tensor:
        """All of a sharded tensor, on the CPU of rank 0; all ranks must call."""
        full = tensor.full_tensor()
        return full.cpu() if self.is_global_zero else full.new_empty(0)


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """In the order in which the optimizer's state is numbered."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _split(value: Any, target: Tensor | None) -> Any:
    """`value` sharded as `target` is, if it is a whole tensor of the same size."""
    if not isinstance(value, Tensor) or isinstance(value, DTensor):
        return value
    if not isinstance(target, DTensor) or value.size() != target.size():
        return value
    # every rank has read the file and takes its part: no communication
    return distribute_tensor(
        value.to(target.device), target.device_mesh, target.placements, src_data_rank=None
    )
