"""Sharded checkpoints: a folder to which each process writes the tensors that it holds.

torch.distributed.checkpoint writes the sharded tensors as safetensors files; `rest.ckpt` holds the
rest, and checksums of these files. Nothing in the folder is a pickle that could run code, which the
`.metadata` file of torch's own storage is (pytorch/pytorch#189308).
"""

from __future__ import annotations

import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from vision.checkpoints.archive import put_in_place, read_file, save_whole, unwritable
from vision.errors import first_line

_REST = "rest.ckpt"
_FILES = "shards"  # key in it: file name -> size in bytes, CRC-32


def is_sharded(path: Path) -> bool:
    """Whether `path` is the folder of a sharded checkpoint."""
    return (path / _REST).is_file()


def save_sharded(checkpoint: dict[str, Any], folder: Path, previous: Path | None = None) -> None:
    """Write Lightning's `checkpoint`, whose sharded tensors are DTensors; all processes call it.

    It is written to a temporary folder, read back, then renamed. The folder that had this name
    becomes `previous`. Raises UnwritableError on every process, leaving both as they were.
    """
    from torch.distributed import checkpoint as dcp  # 80 modules that few runs have a use for

    rest, tensors = take_out(checkpoint)
    temporary = folder.with_name(f"{folder.name}.tmp")
    rank, world_size = distributed.get_rank(), distributed.get_world_size()
    if rank == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    distributed.barrier()
    problem, sums = None, {}
    try:
        writer = dcp.HuggingFaceStorageWriter(str(temporary), save_distributed=True)
        dcp.save(tensors, storage_writer=writer)
        files = sorted(temporary.glob("*.safetensors"))[rank::world_size]
        sums = {file.name: _checksum(file) for file in files}
    except (dcp.CheckpointException, OSError, RuntimeError) as error:
        problem = str(error)
    gathered: list[Any] = [None] * world_size
    distributed.all_gather_object(gathered, (problem, sums))
    outcome = [next((found for found, _ in gathered if found), None)]
    if rank == 0:
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


def rest_file(folder: Path) -> Path:
    """The file that holds all but the sharded tensors."""
    return folder / _REST


def read_rest(folder: Path) -> dict[str, Any]:
    """All but the sharded tensors. Raises ValueError if a file is missing or was changed."""
    rest = read_file(folder / _REST)
    saved = rest.pop(_FILES, None)
    if not isinstance(saved, dict):
        raise ValueError(f"{folder}: not a checkpoint, {_REST} does not list its files")
    found = {file.name: file for file in folder.glob("*.safetensors")}
    for name in saved.keys() ^ found.keys():
        problem = "does not belong to it" if name in found else "is missing"
        raise ValueError(f"{folder}: damaged, {name} {problem}")
    for name, file in found.items():
        if _checksum(file) != tuple(saved[name]):
            raise ValueError(f"{folder}: damaged, the checksum of {name} does not match")
    return rest


def read_sharded(
    folder: Path, like: Mapping[str, Tensor] | None = None, rest: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The checkpoint as it was saved, by any number of processes, its tensors whole on the CPU.

    Where `like` holds a DTensor under a tensor's name (`tensor_name`, for an optimizer without the
    last part), each process reads only its part, and all processes must call. `rest` is what
    `read_rest` returned, if that was called before. Raises ValueError.
    """
    from torch.distributed import checkpoint as dcp

    rest, like = read_rest(folder) if rest is None else rest, like or {}
    try:
        reader = dcp.HuggingFaceStorageReader(str(folder))
        tensors: dict[str, Tensor] = {}
        for name, entry in reader.read_metadata().state_dict_metadata.items():
            assert isinstance(entry, dcp.TensorStorageMetadata)  # these files hold nothing else
            target = like.get(name, like.get(name.rpartition("/")[0]))
            if isinstance(target, DTensor) and target.size() == entry.size:
                tensors[name] = torch.empty_like(target)
            else:
                tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
        alone = not any(isinstance(tensor, DTensor) for tensor in tensors.values())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # on purpose
            dcp.load(tensors, storage_reader=reader, no_dist=alone)
        return put_back(rest, tensors)
    except (dcp.CheckpointException, SafetensorError, LookupError) as error:
        raise ValueError(f"{folder}: not a checkpoint ({first_line(error)})") from None


def tensor_name(*parts: str | int) -> str:
    """`weights/NAME`, or `optimizer/NUMBER/PARAMETER/NAME` with the parameter's number."""
    return "/".join(map(str, parts))


def take_out(checkpoint: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Lightning's `checkpoint` without its DTensors, and these by `tensor_name`."""
    tensors: dict[str, Any] = {}

    def without(values: dict[Any, Any], *name: str | int) -> dict[Any, Any]:
        sharded = {k: v for k, v in values.items() if isinstance(v, DTensor)}
        tensors.update({tensor_name(*name, k): v for k, v in sharded.items()})
        return {k: v for k, v in values.items() if k not in sharded}

    rest = {**checkpoint, "state_dict": without(checkpoint["state_dict"], "weights")}
    if "optimizer_states" in checkpoint:
        rest["optimizer_states"] = [
            {**s, "state": {k: without(v, "optimizer", i, k) for k, v in s["state"].items()}}
            for i, s in enumerate(checkpoint["optimizer_states"])
        ]
    return rest, tensors


def put_back(rest: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Undo `take_out`."""
    for name, tensor in tensors.items():
        kind, _, place = name.partition("/")
        if kind == "weights":
            rest["state_dict"][place] = tensor
        else:
            number, parameter, key = place.split("/", 2)
            rest["optimizer_states"][int(number)]["state"][int(parameter)][key] = tensor
    return rest


def _checksum(file: Path) -> tuple[int, int]:
    """Size in bytes and CRC-32."""
    value = 0
    with file.open("rb") as content:
        while block := content.read(1 << 24):
            value = zlib.crc32(block, value)
    return file.stat().st_size, value
