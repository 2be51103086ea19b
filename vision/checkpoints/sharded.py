"""Checkpoints of a sharded model as a folder: each process writes the part that it holds.

The folder has torch.distributed.checkpoint's safetensors files with the sharded tensors, and
`rest.ckpt` with all else and the files' checksums. There is no pickle in it that could run code.
"""

from __future__ import annotations

import shutil
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.tensor import DTensor

from vision.checkpoints.archive import put_in_place, read_file, save_whole, unwritable

_REST = "rest.ckpt"  # all but the sharded tensors
_FILES = "shards"  # key in it: file name -> size in bytes, CRC-32


def is_sharded(path: Path) -> bool:
    """Whether `path` is the folder of a sharded checkpoint."""
    return (path / _REST).is_file()


def save_sharded(checkpoint: dict[str, Any], folder: Path, previous: Path | None = None) -> None:
    """Write Lightning's `checkpoint`, whose sharded tensors are DTensors; all processes call it.

    It is written under a temporary name, read back, then renamed. What `folder` was before becomes
    `previous`. Raises UnwritableError on every process, leaving both as they were.
    """
    rest, tensors = _take_out(checkpoint)
    temporary = folder.with_name(f"{folder.name}.tmp")
    if distributed.get_rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    distributed.barrier()
    problem: str | None = None
    try:
        writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        dcp.save(tensors, storage_writer=writer)
        sums = _sums(temporary, distributed.get_rank(), distributed.get_world_size())
    except (dcp.api.CheckpointException, OSError, RuntimeError) as error:
        problem, sums = str(error).splitlines()[0], {}
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, (problem, sums))
    outcome = [next((found for found, _ in gathered if found), None)]
    if distributed.get_rank() == 0:
        try:
            if outcome[0] is None:
                rest[_FILES] = {name: value for _, part in gathered for name, value in part.items()}
                save_whole(rest, temporary / _REST)
                put_in_place(temporary, folder, previous)
        except OSError as error:
            outcome = [str(error)]
        shutil.rmtree(temporary, ignore_errors=True)
    distributed.broadcast_object_list(outcome)
    if outcome[0] is not None:
        raise unwritable(folder, outcome[0])


def read_rest(folder: Path) -> dict[str, Any]:
    """All but the sharded tensors. Raises ValueError if a file is missing or not what was saved."""
    rest = read_file(folder / _REST)
    saved = rest.pop(_FILES, None)
    if not isinstance(saved, dict):
        raise ValueError(f"{folder}: not a checkpoint, {_REST} does not tell its parts")
    found = {file.name: file for file in folder.glob("*.safetensors")}
    for name in saved.keys() ^ found.keys():
        kind = "not a part of it" if name in found else "missing"
        raise ValueError(f"{folder}: damaged, {name} is {kind}")
    for name, file in found.items():
        if _sum(file) != tuple(saved[name]):
            raise ValueError(f"{folder}: damaged, {name} is not what was written")
    return rest


def read_sharded(
    folder: Path, like: Callable[[str, torch.Size], Tensor | None] = lambda name, size: None
) -> dict[str, Any]:
    """The checkpoint as it was saved, its tensors whole: it may have had any number of processes.

    `like` gives the tensor to read into, by a name as of `tensor_name`: of a DTensor each process
    reads its part, and all must call. None, or no `like`: a whole one.
    """
    rest = read_rest(folder)
    try:
        reader = HuggingFaceStorageReader(str(folder))
        saved = reader.read_metadata().state_dict_metadata
        tensors: dict[str, Tensor] = {}
        for name, entry in saved.items():
            assert isinstance(entry, TensorStorageMetadata)  # these files hold nothing else
            target = like(name, entry.size)
            tensors[name] = (
                torch.empty(entry.size, dtype=entry.properties.dtype) if target is None else target
            )
        alone = not any(isinstance(tensor, DTensor) for tensor in tensors.values())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # on purpose
            dcp.load(tensors, storage_reader=reader, no_dist=alone)
        return _put_back(rest, tensors)
    except (dcp.api.CheckpointException, SafetensorError, LookupError) as error:
        raise ValueError(f"{folder}: not a checkpoint ({str(error).splitlines()[0]})") from None


def tensor_name(*parts: str | int) -> str:
    """`weights/NAME`, or `optimizer/NUMBER/PARAMETER/NAME` with the parameter's number."""
    return "/".join(map(str, parts))


def _take_out(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`checkpoint` without its DTensors, and these by name."""
    tensors: dict[str, Any] = {}

    def part(values: dict[Any, Any], *name: str | int) -> dict[Any, Any]:
        sharded = {k: v for k, v in values.items() if isinstance(v, DTensor)}
        tensors.update({tensor_name(*name, k): v for k, v in sharded.items()})
        return {k: v for k, v in values.items() if k not in sharded}

    rest = {**checkpoint, "state_dict": part(checkpoint["state_dict"], "weights")}
    if "optimizer_states" in checkpoint:
        rest["optimizer_states"] = [
            {**s, "state": {k: part(v, "optimizer", i, k) for k, v in s["state"].items()}}
            for i, s in enumerate(checkpoint["optimizer_states"])
        ]
    return rest, tensors


def _put_back(rest: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    for name, tensor in tensors.items():
        kind, _, place = name.partition("/")
        if kind == "weights":
            rest["state_dict"][place] = tensor
        else:
            number, parameter, key = place.split("/", 2)
            rest["optimizer_states"][int(number)]["state"][int(parameter)][key] = tensor
    return rest


def _sums(folder: Path, rank: int, world_size: int) -> dict[str, tuple[int, int]]:
    """Size and checksum of this process's share of the files, read back."""
    files = sorted(folder.glob("*.safetensors"))[rank::world_size]
    return {file.name: _sum(file) for file in files}


def _sum(file: Path) -> tuple[int, int]:
    value = 0
    with file.open("rb") as content:
        while block := content.read(1 << 24):
            value = zlib.crc32(block, value)
    return file.stat().st_size, value
