"""What several test folders share: running the tools as a person would, on small settings."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# two real but narrow blocks on digits: an epoch takes about a second
SMALL = [
    "model.embed_dim=48",
    "model.depth=2",
    "model.num_heads=3",
    "optim.lr=2e-3",
    "optim.warmup_epochs=0.5",
    "trainer.epochs=2",
    "trainer.batch_size_total=32",
    "trainer.progress_bar=false",
]

Tool = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Overrides that make a shipped ViT config small enough for a test."""
    return list(SMALL)


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """One thread per process, so that tests may run beside each other."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}


@pytest.fixture(scope="session")
def tool(environment: dict[str, str]) -> Tool:
    """Run `tools/NAME.py ARGUMENTS` from the repository's root."""

    def run(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        command = [sys.executable, f"tools/{name}.py", *map(str, arguments)]
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
        return result

    return run


@pytest.fixture(scope="session")
def trained(tool: Tool, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small SeeDNorm run with averaged weights, trained once per session."""
    output = tmp_path_factory.mktemp("runs")
    tool(
        "train",
        "configs/vit_ti_seednorm.yaml",
        *small,
        "trainer.epochs=8",
        "norm.options.num_heads=4",
        f"output_dir={output}",
        "name=trained",
    )
    return output / "trained"
