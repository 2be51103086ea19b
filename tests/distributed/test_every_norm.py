"""Every norm there is resumes bit-exactly after SIGKILL, and 1 and 2 processes agree."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vision.checkpoints.read import read_checkpoint
from vision.norms import list_norms

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=list_norms())
def norm(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def make(norm: str, make_arguments, settings_of) -> Callable[[str, int, Path], list[str]]:
    """Arguments of a run, named, in some processes, below a folder."""

    def arguments(name: str, processes: int, output: Path) -> list[str]:
        strategy = ["trainer.strategy=ddp"] if processes > 1 else []
        return make_arguments(name, "norm", processes, settings_of(norm) + strategy, output)

    return arguments


@pytest.fixture(scope="module")
def whole(make, world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in one process that nothing interrupted."""
    output = tmp_path_factory.mktemp("whole")
    world(1, [make("run", 1, output)])
    return output / "run"


def test_one_and_two_processes_agree(
    make, world, whole: Path, assert_same_state, tmp_path: Path
) -> None:
    world(2, [make("run", 2, tmp_path)])
    several = read_checkpoint(tmp_path / "run" / "last.ckpt")
    assert_same_state(several, read_checkpoint(whole / "last.ckpt"))


def test_resume_after_sigkill_is_bit_exact(
    make, forked, kill, whole: Path, assert_same_training, tmp_path: Path
) -> None:
    killed = [*make("run", 1, tmp_path), "trainer.checkpoint_every_n_steps=3", "--resume"]
    kill(killed, saves=3)
    forked("tools/train.py", *killed)
    assert_same_training(whole, tmp_path / "run")
