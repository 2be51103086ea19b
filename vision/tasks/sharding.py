"""Models whose weights are split over ranks: torch's `fully_shard` (FSDP2)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_BLOCK = re.compile(r"(^|.*\.)\w*blocks\.\d+")  # gathered and freed one at a time


def shard(
    mesh: DeviceMesh, *models: nn.Module | None, compute_dtype: torch.dtype | None = None
) -> None:
    """Split the parameters of each model; blocks are gathered one at a time as they compute.

    `compute_dtype`: that of autocast, which casts the weights of linear layers to it; in blocks
    they are gathered in it then, for half the communication and memory and the same numbers.
    Gradients are summed over ranks in float32. All other parameters (norms, scales, embeddings) are
    gathered as they are.

    Raises ValueError for a model with batch norms, whose running statistics would differ.
    """
    for model in models:
        if model is None or isinstance(model, FSDPModule):
            continue
        for name, module in model.named_modules():
            if isinstance(module, _BATCH_NORMS):
                raise ValueError(
                    f"trainer.strategy = 'fsdp': {name} of the model is a batch norm, whose "
                    "running statistics would differ between processes; use ddp"
                )
        for name, module in reversed(list(model.named_modules())):
            if _BLOCK.fullmatch(name):
                linear: list[nn.Module] = [m for m in module.modules() if isinstance(m, nn.Linear)]
                if compute_dtype is not None and linear:
                    fully_shard(linear, mesh=mesh, mp_policy=_policy(compute_dtype))
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
        if hasattr(model, "features"):  # called besides forward
            register_fsdp_forward_method(model, "features")


def _policy(dtype: torch.dtype) -> MixedPrecisionPolicy:
    return MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)


@contextmanager
def whole_weights(*models: nn.Module | None) -> Iterator[None]:
    """Gather the weights of sharded models; within it, each rank can run them alone.

    Evaluation needs this, because ranks run different numbers of batches. All must enter. Models
    that are not sharded are left alone.
    """
    parts = [m for model in models if model for m in model.modules() if isinstance(m, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(part not in models, recurse=False)
            part.reshard()
