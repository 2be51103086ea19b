"""Norms with running statistics give the same in one process and in two with half a batch each."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # as a script

from vision.norms import create_norm, get_norm, list_norms

DIM, STEPS = 6, 4
RUNNING = [name for name in list_norms() if getattr(get_norm(name), "running", False)]


def train(name: str, part: slice) -> dict[str, Tensor]:
    """Some steps on a part of each batch: outputs, gradients, and the state at the end.

    The loss is a mean over the part, so its gradients are larger than those of the whole batch.
    """
    parts = 1 if part == slice(None) else 2
    torch.manual_seed(0)
    norm = create_norm(name, DIM, dtype=torch.float64)
    for parameter in norm.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    found = {}
    for step in range(STEPS):
        x, g = (1 + step) * torch.randn(2, 4, 3, DIM, dtype=torch.float64)
        x = x[part].requires_grad_()
        norm.follow(step / STEPS)
        y = norm(x)
        y.backward(parts * g[part])
        found |= {f"rows.{step}.y": y.detach(), f"rows.{step}.dx": x.grad / parts}
    found |= {f"sums.{key}": p.grad / parts for key, p in norm.named_parameters()}
    return found | {f"same.{key}": buffer for key, buffer in norm.named_buffers()}


def rank(index: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=index, world_size=2)
    half = slice(2 * index, 2 * index + 2)
    torch.save({name: train(name, half) for name in RUNNING}, folder / f"{index}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def halves(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    commands = [[sys.executable, __file__, str(index), str(folder)] for index in range(2)]
    ranks = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    return [torch.load(folder / f"{index}.pt") for index in range(2)]


@pytest.mark.parametrize("name", RUNNING)
def test_two_processes_agree_with_one(halves, name):
    whole, (first, second) = train(name, slice(None)), (half[name] for half in halves)
    assert whole.keys() == first.keys() and any(key.startswith("same.") for key in whole)
    for key, expected in whole.items():
        if key.startswith("same."):
            assert torch.equal(first[key], second[key])
            found = first[key]
        else:
            parts = first[key], second[key]
            found = torch.cat(parts) if key.startswith("rows.") else sum(parts)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11, msg=key)


if __name__ == "__main__":
    rank(int(sys.argv[1]), Path(sys.argv[2]))
