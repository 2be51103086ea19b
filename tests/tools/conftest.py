"""What the tests of training share: killing a run, and comparing two."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

CODES = {"SIGKILL": -9, "SIGTERM": 75}


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
