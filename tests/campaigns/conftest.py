"""How much of a campaign is run, on which run and disk."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# 20 steps in two epochs, with every file that a classifier's run can have
SHORT_RUN = [
    "configs/vit_ti.yaml", "norm.name=layernorm", "model.embed_dim=48", "model.depth=2",
    "model.num_heads=3", "optim.warmup_epochs=0.5", "trainer.epochs=2", "data.train_fraction=0.26",
    "trainer.batch_size_total=32", "trainer.progress_bar=false",
    "trainer.checkpoint_every_n_steps=4", "trainer.diagnostics_every_n_steps=4",
    "trainer.log_every_n_steps=2", "name=run", "--resume",
]  # fmt: skip


@pytest.fixture(scope="session")
def number() -> Callable[[int, int], int]:
    """The second of two numbers where CAMPAIGN=long, else the first."""
    return lambda short, long: long if os.environ.get("CAMPAIGN") == "long" else short


@pytest.fixture(scope="session")
def short_run() -> list[str]:
    """Arguments of tools/train.py for a run that writes every file that a classifier's can have."""
    return list(SHORT_RUN)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    while place.is_mount():  # tests mount on it
        subprocess.run(["umount", str(place)], check=True)
