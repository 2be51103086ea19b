"""Small runs of every task in 1, 2 and 4 processes, by every strategy, all of the same recipe."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]

# 20 steps in two epochs, the state after step 14 kept as previous.ckpt; nothing drawn per device.
# Adam divides by the size of a gradient: with its usual eps, rounding errors would matter
RECIPE = [
    "model.embed_dim=48", "model.depth=2", "model.num_heads=3", "model.drop_path_rate=0",
    "mix.mixup=0", "mix.cutmix=0", "optim.opt=adamw", "optim.eps=1e-3", "optim.lr=5e-3",
    "optim.warmup_epochs=0.5", "optim.clip_grad=0.5", "ema.decay=0.9", "data.train_fraction=0.26",
    "data.num_workers=0", "trainer.epochs=2", "trainer.batch_size_total=32",
    "trainer.accelerator=cpu", "trainer.checkpoint_every_n_steps=14", "trainer.log_every_n_steps=2",
    "trainer.val_every_n_epochs=1", "trainer.progress_bar=false",
]  # fmt: skip
TASKS = {
    "classify": ["configs/vit_ti.yaml", "configs/norm/seednorm.yaml", "norm.options.num_heads=4"],
    "mae": [
        "configs/mae_ti.yaml", "configs/norm/seednorm.yaml",
        "norm.options.num_heads=4", "mae.decoder_embed_dim=32",
        "mae.decoder_depth=1", "mae.decoder_num_heads=2", "mae.knn_every_n_epochs=1",
    ],
    "batch": ["configs/vit_ti.yaml", "norm.name=batchnorm"],  # statistics over the batch
    "power": ["configs/vit_ti.yaml", "norm.name=powernorm"],  # and of gradients
    "dit": [
        "configs/dit_b4.yaml", "norm.name=layernorm", "dit.sample_every_n_steps=10",
        "dit.sample_steps=2",
    ],
    "norm": ["configs/vit_ti.yaml"],  # whichever is given
}  # fmt: skip
FSDP = ["trainer.strategy=fsdp"]
SHARDED = [*FSDP, "trainer.sharded_checkpoint=true"]
DDP = ["trainer.strategy=ddp"]
# name: task, processes, what differs
RUNS: dict[str, tuple[str, int, list[str]]] = {
    "classify_1": ("classify", 1, []),
    "mae_1": ("mae", 1, []),
    "dit_1": ("dit", 1, []),
    "batch_1": ("batch", 1, []),
    "power_1": ("power", 1, []),
    "batch_2": ("batch", 2, FSDP),
    "power_2": ("power", 2, DDP),
    "classify_2": ("classify", 2, [*DDP, "trainer.batch_size_device=8"]),
    "mae_2": ("mae", 2, SHARDED),
    "dit_2": ("dit", 2, DDP),
    "classify_4": ("classify", 4, [*FSDP, "trainer.diagnostics_every_n_steps=10"]),
}
# name: whose previous.ckpt, processes, what differs
RESUMED: dict[str, tuple[str, int, list[str]]] = {
    "mae_2_in_1": ("mae_2", 1, []),
    "power_2_in_1": ("power_2", 1, []),
    "classify_1_in_2": ("classify_1", 2, [*FSDP, "trainer.batch_size_device=4"]),
}


World = Callable[..., str]
SAME = {"atol": 1e-5, "rtol": 0}  # float32, 20 steps


def arguments(name: str, task: str, world: int, extra: list[str], output: Path) -> list[str]:
    config, *own = TASKS[task]
    placed = [f"name={name}", f"output_dir={output}", f"trainer.devices={world}"]
    return [config, *RECIPE, *own, *extra, *placed]


class Server:
    """`world.py`, started when it is first needed."""

    def __init__(self, environment: dict[str, str], logs: Path) -> None:
        self.environment = environment
        self.logs = logs
        self.process: subprocess.Popen | None = None

    def train(
        self,
        size: int,
        runs: list[list[str]],
        codes: list[int] | None = None,
        **how: Any,
    ) -> str:
        """Train `runs` (arguments) in `size` processes, which end with `codes`; their output.

        `how` are further keys of what `world.py` reads.
        """
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "tests/distributed/world.py"], cwd=ROOT, env=self.environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        log = f"{len(list(self.logs.iterdir())):03d}"
        request = {"world": size, "runs": runs, "output": str(self.logs / log), **how}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        text = "\n".join(file.read_text() for file in sorted(self.logs.glob(f"{log}.*")))
        assert answer == (codes or [0] * size), text
        return text

    def close(self) -> None:
        if self.process is not None:
            self.process.communicate()


@pytest.fixture(scope="session")
def world(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Train a list of runs in some processes; see `Server.train`."""
    server = Server(environment, tmp_path_factory.mktemp("logs"))
    yield server.train
    server.close()


@pytest.fixture(scope="session")
def runs(world: World, once: Callable[..., Path]) -> Path:
    """The folder of all runs in RUNS and RESUMED."""
    return once("worlds", lambda output: train_all(world, output))


def train_all(world: World, output: Path) -> None:
    for size in (1, 2, 4):
        world(size, [arguments(n, t, w, x, output) for n, (t, w, x) in RUNS.items() if w == size])
    for name, (start, _, _) in RESUMED.items():
        begin_as(output / start / "previous.ckpt", output / name / "last.ckpt")
    for size in (1, 2, 4):
        found = [(n, RUNS[s][0], w, x) for n, (s, w, x) in RESUMED.items() if w == size]
        world(size, [arguments(*run, output) for run in found])


@pytest.fixture(scope="session")
def make_arguments() -> Callable[..., list[str]]:
    """Those of `arguments`, for tests that train runs of their own."""
    return arguments


def begin_as(checkpoint: Path, place: Path) -> None:
    place.parent.mkdir()
    copy: Callable = shutil.copytree if checkpoint.is_dir() else shutil.copy
    copy(checkpoint, place)


@pytest.fixture(scope="session")
def assert_same_state() -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Two checkpoints after 20 steps hold the same up to rounding."""

    def check(found: dict[str, Any], expected: dict[str, Any]) -> None:
        """Weights, their average, the running loss, and the optimizer state."""
        assert found["global_step"] == expected["global_step"] == 20
        assert found["state_dict"].keys() == expected["state_dict"].keys()
        for name, tensor in expected["state_dict"].items():
            torch.testing.assert_close(found["state_dict"][name], tensor, **SAME, msg=name)
        (ours,), (theirs,) = found["optimizer_states"], expected["optimizer_states"]
        assert ours["param_groups"] == theirs["param_groups"]
        assert ours["state"].keys() == theirs["state"].keys()
        for number, state in theirs["state"].items():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                torch.testing.assert_close(ours["state"][number][key], state[key], **SAME)

    return check
