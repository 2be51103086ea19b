"""When a process is lost or receives a signal, the job ends cleanly and resumes."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision.checkpoints.read import read_checkpoint, read_step

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
REQUEUE = 75


def at(step: int, kind: str, rank: int) -> str:
    return (
        f"trainer.loggers=[{{class: signals.SignalAt, kind: {kind}, step: {step}, rank: {rank}}}]"
    )


def assert_same_weights(run: Path, whole: Path) -> None:
    found, expected = (read_checkpoint(path / "last.ckpt") for path in (run, whole))
    assert found["global_step"] == expected["global_step"] == 20
    for name, tensor in expected["state_dict"].items():
        torch.testing.assert_close(found["state_dict"][name], tensor, atol=1e-5, rtol=0, msg=name)


def test_a_killed_process_ends_the_job_with_a_message_and_it_resumes(
    world: Callable[..., str], make_arguments: Callable[..., list[str]], runs: Path, tmp_path: Path
) -> None:
    run = make_arguments("killed", "classify", 2, ["trainer.strategy=ddp"], tmp_path)
    output = world(2, [[*run, at(12, "SIGKILL", rank=1)]], codes=[1, -signal.SIGKILL])
    assert "process 0 of 2 ends at step" in output and "--resume" in output
    assert read_step(tmp_path / "killed" / "last.ckpt") == 10  # the last that was written
    world(2, [run])
    assert_same_weights(tmp_path / "killed", runs / "classify_1")


def test_a_signal_to_one_process_stops_all_at_the_same_step(
    world: Callable[..., str], make_arguments: Callable[..., list[str]], runs: Path, tmp_path: Path
) -> None:
    extra = ["trainer.strategy=fsdp", "trainer.sharded_checkpoint=true"]
    run = make_arguments("stopped", "classify", 2, extra, tmp_path)
    output = world(2, [[*run, at(4, "SIGTERM", rank=1)]], codes=[REQUEUE, 0])
    assert "stopped by a signal at step 5" in output
    assert read_step(tmp_path / "stopped" / "last.ckpt") == 5  # nothing is lost
    world(2, [run])
    assert_same_weights(tmp_path / "stopped", runs / "classify_1")


def test_slurm_starts_a_job_and_its_sigusr1_saves_and_requeues(
    world: Callable[..., str], make_arguments: Callable[..., list[str]], runs: Path, tmp_path: Path
) -> None:
    run = make_arguments("slurm", "classify", 2, ["trainer.strategy=ddp"], tmp_path)
    output = world(2, [[*run, at(16, "SIGUSR1", rank=0)]], codes=[REQUEUE, 0], slurm=True)
    assert "--resume continues" in output
    assert read_step(tmp_path / "slurm" / "last.ckpt") == 17
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
