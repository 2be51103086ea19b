"""When a process is lost or receives a signal, the job ends cleanly and resumes."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision.checkpoints.read import read_checkpoint, read_run

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
REQUEUE = 75
NAN_ON_RANK_1 = """
import os

from torch import Tensor
from torch.nn import functional as F

from vision.norms.base import Norm
from vision.norms.registry import register_norm


@register_norm("nan_on_rank_1")
class NaNOnRank1(Norm):
    def __init__(self, dim, *, affine=True, channels_first=False, device=None, dtype=None):
        super().__init__(dim, affine=affine, channels_first=channels_first)

    def normalize(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, x.shape[-1:])
        return y * float("nan") if os.environ["RANK"] == "1" else y
"""


def at(step: int, kind: str, rank: int) -> str:
    return (
        f"trainer.loggers=[{{class: signals.SignalAt, kind: {kind}, step: {step}, rank: {rank}}}]"
    )


def assert_same_weights(run: Path, whole: Path) -> None:
    found, expected = (read_checkpoint(path / "last.ckpt") for path in (run, whole))
    assert found["global_step"] == expected["global_step"] == 20
    for name, tensor in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], tensor, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_killed_process_ends_the_job_with_a_message_and_it_resumes(
    strategy: str,
    world: Callable[..., str],
    make_arguments: Callable[..., list[str]],
    runs: Path,
    tmp_path: Path,
) -> None:
    run = make_arguments("killed", "classify", 2, [f"trainer.strategy={strategy}"], tmp_path)
    output = world(2, [[*run, at(12, "SIGKILL", rank=1)]], codes=[1, -signal.SIGKILL])
    sent = re.search(r"sends SIGKILL at (.*)", output)
    assert sent is not None
    seconds = time.time() - float(sent[1])
    print(f"{strategy}: all ended {seconds:.1f} s after one was killed")
    assert seconds < 60
    assert "process 0 of 2 ends at step" in output and "--resume" in output
    assert (
        read_run(tmp_path / "killed" / "last.ckpt")["global_step"] == 10
    )  # the last that was written
    world(2, [run])
    assert_same_weights(tmp_path / "killed", runs / "classify_1")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_new_run_starts_though_the_first_process_comes_last(
    strategy: str,
    world: Callable[..., str],
    make_arguments: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    """Without --resume: what another process makes of the directory is no run of before."""
    extra = [f"trainer.strategy={strategy}", "trainer.epochs=1"]
    world(2, [make_arguments("new", "classify", 2, extra, tmp_path)], late=0, resume=False)
    assert (tmp_path / "new" / "summary.json").exists()
    (start,) = json.loads((tmp_path / "new" / "environment.json").read_text())
    assert start["resumed_from_step"] is None


def test_a_signal_to_one_process_stops_all_at_the_same_step(
    world: Callable[..., str], make_arguments: Callable[..., list[str]], runs: Path, tmp_path: Path
) -> None:
    extra = ["trainer.strategy=fsdp", "trainer.sharded_checkpoint=true"]
    run = make_arguments("stopped", "classify", 2, extra, tmp_path)
    output = world(2, [[*run, at(4, "SIGTERM", rank=1)]], codes=[REQUEUE, 0])
    assert "stopped by a signal at step 5" in output
    assert read_run(tmp_path / "stopped" / "last.ckpt")["global_step"] == 5  # nothing is lost
    world(2, [run])
    assert_same_weights(tmp_path / "stopped", runs / "classify_1")


def test_slurm_starts_a_job_and_its_sigusr1_saves_and_requeues(
    world: Callable[..., str], make_arguments: Callable[..., list[str]], runs: Path, tmp_path: Path
) -> None:
    run = make_arguments("slurm", "classify", 2, ["trainer.strategy=ddp"], tmp_path)
    output = world(2, [[*run, at(16, "SIGUSR1", rank=0)]], codes=[REQUEUE, 0], slurm=True)
    assert "--resume continues" in output
    assert read_run(tmp_path / "slurm" / "last.ckpt")["global_step"] == 17
    assert not list(tmp_path.glob("**/hpc_ckpt*"))  # Lightning's own, mid-step and not resumed here
    world(1, [make_arguments("slurm", "classify", 1, [], tmp_path)])
    assert_same_weights(tmp_path / "slurm", runs / "classify_1")


def test_two_nodes_meet_by_torchrun(
    make_arguments: Callable[..., list[str]],
    environment: dict[str, str],
    runs: Path,
    tmp_path: Path,
) -> None:
    run = make_arguments("nodes", "classify", 1, ["trainer.strategy=ddp"], tmp_path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    nodes = [
        subprocess.Popen(
            [
                *torchrun, f"--node-rank={rank}", "--master-addr=127.0.0.1",
                f"--master-port={port}", "tools/train.py", *run, "trainer.num_nodes=2",
            ],
            cwd=ROOT,
            env={**environment, "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [node.communicate(timeout=900)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(outputs)
    assert "epoch 2/2" in outputs[0] and "epoch 2/2" not in outputs[1]  # rank 0 prints
    assert_same_weights(tmp_path / "nodes", runs / "classify_1")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_loss_that_is_nan_on_one_rank_ends_all_with_one_message(
    strategy: str,
    world: Callable[..., str],
    make_arguments: Callable[..., list[str]],
    tmp_path: Path,
) -> None:
    module = tmp_path / "nan_on_rank_1.py"
    module.write_text(NAN_ON_RANK_1)
    extra = [
        "norm.name=nan_on_rank_1", f"norm.module={module}", f"trainer.strategy={strategy}",
        "trainer.log_every_n_steps=1",
    ]  # fmt: skip
    run = make_arguments("nan", "norm", 2, extra, tmp_path)
    started = time.monotonic()
    output = world(2, [run], codes=[3, 3])
    seconds = time.monotonic() - started
    print(f"{strategy}: all ended {seconds:.1f} s after their start")
    assert seconds < 60
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, output
    assert "the loss is nan, first seen in blocks.0.norm1 (NaNOnRank1) on rank 1" in errors[0]
    assert "Traceback" not in output
