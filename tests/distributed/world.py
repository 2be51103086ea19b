"""Trains in several processes as torchrun would start them, but forked after the imports.

Reads lines of JSON: number of processes, runs (arguments of tools/train.py, one list per run),
where output goes, whether to act as SLURM, whether runs may be resumed, and which rank starts some
seconds late. Answers each with the exit codes.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

import matplotlib.pyplot
import sklearn.datasets
import torch
import torch._dynamo
import torch.distributed.checkpoint
import torch.utils.tensorboard
from ending import end_with

import vision.diffusion.generate
import vision.diffusion.load_pipeline
import vision.tasks.classify
import vision.tasks.dit
import vision.tasks.mae  # noqa: F401
from vision.errors import run_tool
from vision.training.check import load_checked
from vision.training.train import train

_IMPORTED = (matplotlib, sklearn)  # what training imports only where it is used

_LATE = 4  # seconds; the others come as far as they can alone
TIMEOUT = 900  # seconds; then a process ends by SIGALRM


def be_rank(rank: int, request: dict[str, Any], port: int) -> NoReturn:
    signal.alarm(TIMEOUT)
    output = os.open(f"{request['output']}.{rank}", os.O_WRONLY | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    variables = slurm if request.get("slurm") else torchrun
    os.environ.update(variables(str(rank), str(request["world"])))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    late = request.get("late")
    if late is not None and late == rank:
        time.sleep(_LATE)
    resume = request.get("resume", True)
    end_with(partial(run_tool, partial(train_all, request["runs"], resume)))


def train_all(runs: list[list[str]], resume: bool) -> None:
    for arguments in runs:
        train(load_checked(arguments).config, resume)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def torchrun(rank: str, world: str) -> dict[str, str]:
    """Environment variables of torchrun for a process on a machine of its own."""
    return {
        "TORCHELASTIC_RUN_ID": "test", "RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": "0",
        "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
    }  # fmt: skip


def slurm(rank: str, world: str) -> dict[str, str]:
    """Environment variables of srun for a process on one node."""
    return {
        "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": world,
        "SLURM_NTASKS_PER_NODE": world, "SLURM_NNODES": "1", "SLURM_NODEID": "0",
        "SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODELIST": "localhost",
    }  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main() -> None:
    gc.collect()
    gc.freeze()  # else each fork goes through all that was imported once more as it ends: 1.5 s
    for line in sys.stdin:
        request, port, ranks = json.loads(line), free_port(), []
        for rank in range(request["world"]):
            process = os.fork()
            if process == 0:
                be_rank(rank, request, port)
            ranks.append(process)
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in ranks]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
