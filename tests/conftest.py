"""What several test folders share: running the tools as a person would, on small settings, killing
a run, comparing two, and what each norm needs."""

import csv
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from vision.norms import get_norm

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

# as narrow, with everything on that a resume has to bring back
SMALL_DIT = [
    "configs/dit_b4.yaml", "configs/norm/seednorm.yaml",
    "model.embed_dim=32", "model.depth=2", "model.num_heads=2",
    "norm.options={num_heads: 4, coefficient_dropout: 0.1}", "trainer.batch_size_device=32",
    "trainer.epochs=3", "trainer.val_every_n_epochs=1", "trainer.checkpoint_every_n_steps=3",
    "trainer.log_every_n_steps=2", "trainer.progress_bar=false", "dit.sample_every_n_steps=30",
    "dit.sample_steps=3", "ema.decay=0.9",
]  # fmt: skip

CODES = {"SIGKILL": -9, "SIGTERM": 75, "SIGINT": 75}

Tool = Callable[..., subprocess.CompletedProcess]
Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, so that no process is left alone with one of them; skip what needs a GPU
    where there is none."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of the garbage collections to come, of which
    torch.compile asks for several in each test."""
    gc.collect()
    gc.freeze()


class Tags(HTMLParser):
    """The tags of a page in their order, each with its attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


@pytest.fixture(scope="session")
def read_tags() -> Callable[[str], Tags]:
    """The tags of a page of HTML."""
    return Tags


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Overrides that make a shipped ViT config small enough for a test."""
    return list(SMALL)


@pytest.fixture(scope="session")
def small_dit() -> list[str]:
    """A shipped DiT config and what makes it small enough for a test."""
    return list(SMALL_DIT)


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
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
        )
        assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
        return result

    return run


@pytest.fixture(scope="session")
def forked(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tool]:
    """Run SCRIPT ARGUMENTS in `folder` as `tool` would, but in a fork of a process that has
    imported torch and the rest: ten seconds less. For where the command line is not the point.
    `code` None: whatever it is."""
    command = [sys.executable, "tests/forking.py"]
    home = tmp_path_factory.mktemp("forked")
    outputs = {"stdout": home / "stdout", "stderr": home / "stderr"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None and server.stdout is not None

        def run(
            script: str, *arguments: object, code: int | None = 0, folder: Path = ROOT
        ) -> subprocess.CompletedProcess:
            request = {"script": str(ROOT / script), "arguments": list(map(str, arguments))}
            request |= {"folder": str(folder)} | {k: str(path) for k, path in outputs.items()}
            for path in outputs.values():  # what a killed one left behind may still write there
                path.unlink(missing_ok=True)
            print(json.dumps(request), file=server.stdin, flush=True)
            answer = server.stdout.readline()
            assert answer, "tests/forking.py ended"
            texts = {key: path.read_text() for key, path in outputs.items()}
            found = int(answer)
            assert code in (found, None), f"{texts['stdout']}\n{texts['stderr']}"
            return subprocess.CompletedProcess([script, *arguments], found, **texts)

        yield run


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """The folder of a name, filled by a function, once for all of pytest's processes."""
    base = tmp_path_factory.getbasetemp()
    home = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        output = home / name
        with FileLock(f"{output}.lock"):
            if not (output / "done").exists():
                output.mkdir(exist_ok=True)  # where filling it failed before
                fill(output)
                (output / "done").touch()
        return output

    return folder


@pytest.fixture(scope="session")
def train_once(
    once: Once, forked: Tool, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The directory of a run of these arguments, trained once for all of pytest's processes; each
    has a copy of its own, since tests write there."""

    def run(name: str, *arguments: str) -> Path:
        def fill(output: Path) -> None:
            forked("tools/train.py", *arguments, f"output_dir={output}", f"name={name}")

        found = once(f"run_{name}", fill) / name
        return Path(shutil.copytree(found, tmp_path_factory.mktemp("runs") / name))

    return run


@pytest.fixture(scope="session")
def trained(train_once: Callable[..., Path], small: list[str]) -> Path:
    """The directory of a small SeeDNorm run with averaged weights."""
    configs = ["configs/vit_ti.yaml", "configs/norm/seednorm.yaml"]
    return train_once("trained", *configs, *small, "trainer.epochs=8", "norm.options.num_heads=4")


@pytest.fixture(scope="session")
def trained_dit(train_once: Callable[..., Path], small_dit: list[str]) -> Path:
    """The directory of a small DiT run with averaged weights."""
    return train_once("trained_dit", *small_dit)


@pytest.fixture(scope="session")
def fid(
    forked: Tool,
    train_once: Callable[..., Path],
    small: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., tuple[dict[str, Any], str]]:
    """tools/fid.py with the features of a classifier of one epoch: (its JSON, its stderr)."""
    home = tmp_path_factory.mktemp("fid")
    plain = ["configs/vit_ti.yaml", "norm.name=layernorm"]
    extractor = train_once("features", *plain, *small, "trainer.epochs=1")
    shared = ["--extractor", f"run:{extractor}", "--device", "cpu"]

    def run(*arguments: object, code: int = 0) -> tuple[dict[str, Any], str]:
        options = [*shared, "--cache", home / "cache", "--json", home / "out.json"]
        result = forked("tools/fid.py", *arguments, *options, code=code)
        found = json.loads((home / "out.json").read_text()) if code == 0 else {}
        return found, result.stdout + result.stderr

    return run


@pytest.fixture(scope="session")
def kill(forked) -> Callable[..., None]:
    """Train with some arguments, killed when `last.ckpt` was replaced `saves` times (2 or more)."""

    def run(
        arguments: Sequence[str], saves: int, kind: str = "SIGKILL", moment: str = "later"
    ) -> None:
        script = ["tests/killed.py", kind, saves, moment, "tools/train.py"]
        forked(*script, *arguments, code=CODES[kind])

    return run


@pytest.fixture(scope="session")
def assert_same_training() -> Callable[[Path, Path], None]:
    """Two runs ended at the same step, with the same bits in every tensor and every figure."""

    def check(first: Path, second: Path) -> None:
        a, b = (torch.load(run / "last.ckpt", weights_only=True) for run in (first, second))
        assert a["global_step"] == b["global_step"]
        assert a["state_dict"].keys() == b["state_dict"].keys()
        for name, tensor in a["state_dict"].items():
            assert torch.equal(tensor, b["state_dict"][name]), name
        moments = [content["optimizer_states"][0]["state"] for content in (a, b)]
        assert moments[0].keys() == moments[1].keys()
        for index, state in moments[0].items():
            for name, tensor in state.items():
                assert torch.equal(tensor, moments[1][index][name]), (index, name)
        tables = [
            list(csv.DictReader((run / "metrics.csv").open(newline=""))) for run in (first, second)
        ]
        for row in tables[0] + tables[1]:
            for timed in ("train/images_per_sec", "train/data_wait_percent"):
                row.pop(timed)
        assert tables[0] == tables[1]

    return check


@pytest.fixture(scope="session")
def settings_of() -> Callable[[str], list[str]]:
    """Overrides that put a norm in a ViT, by what its class declares."""

    def settings(norm: str) -> list[str]:
        places = ["model.mlp_norm=true"] if get_norm(norm).contains_activation else []
        return [f"norm.name={norm}", *places]

    return settings


@pytest.fixture(scope="session")
def vae() -> Callable[..., Any]:
    """A small VAE of 1, 2 or more blocks, whose latents are 2^(blocks - 1) times smaller."""

    import torch  # here, since few tests need them
    from diffusers import AutoencoderKL

    def make(blocks: int = 2) -> Any:
        torch.manual_seed(0)
        return AutoencoderKL(
            block_out_channels=(8,) * blocks,
            norm_num_groups=4,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            scaling_factor=0.5,
        )

    return make
