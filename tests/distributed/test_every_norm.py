"""Every norm there is resumes bit-exactly after SIGKILL, and 1 and 2 processes agree: with every
norm, and with every way to build blocks."""

import typing
from collections.abc import Callable
from pathlib import Path

import pytest

from vision.checkpoints.read import read_checkpoint
from vision.config.schema import ModelConfig
from vision.norms import list_norms

pytestmark = pytest.mark.slow

KINDS = typing.get_type_hints(ModelConfig)
BLOCKS = {  # beside the usual ones, in which every norm is trained
    choice: f"model.{key}={choice}"
    for key, usual in (("norm_placement", "pre"), ("residual", "standard"))
    for kind in (KINDS[key], *typing.get_args(KINDS[key]))
    if typing.get_origin(kind) is typing.Literal
    for choice in typing.get_args(kind)
    if choice != usual
}

Make = Callable[[str, int, Path], list[str]]


@pytest.fixture(scope="module")
def make(make_arguments, settings_of) -> Make:
    """Arguments of the run of a norm, or of a way to build blocks, in some processes."""

    def arguments(name: str, processes: int, output: Path) -> list[str]:
        settings = [BLOCKS[name], "norm.name=rmsnorm"] if name in BLOCKS else settings_of(name)
        strategy = ["trainer.strategy=ddp"] if processes > 1 else []
        return make_arguments(name, "norm", processes, settings + strategy, output)

    return arguments


@pytest.fixture(scope="module")
def whole(make: Make, world, once) -> Path:
    """The folder of all runs in one process, named as the norm, that nothing interrupted."""
    names = [*list_norms(), *BLOCKS]
    return once("every_1", lambda output: world(1, [make(name, 1, output) for name in names]))


@pytest.fixture(scope="module")
def halved(make: Make, world, once) -> Path:
    """The folder of the same runs in two processes, started once for all of them."""
    names = [*list_norms(), *BLOCKS]
    return once("every_2", lambda output: world(2, [make(name, 2, output) for name in names]))


@pytest.mark.parametrize("name", [*list_norms(), *BLOCKS])
def test_one_and_two_processes_agree(
    halved: Path, whole: Path, assert_same_state, name: str
) -> None:
    found, expected = (read_checkpoint(runs / name / "last.ckpt") for runs in (halved, whole))
    assert_same_state(found, expected)


@pytest.mark.parametrize("norm", list_norms())
def test_resume_after_sigkill_is_bit_exact(
    make: Make, forked, kill, whole: Path, assert_same_training, tmp_path: Path, norm: str
) -> None:
    killed = [*make(norm, 1, tmp_path), "trainer.checkpoint_every_n_steps=3", "--resume"]
    kill(killed, saves=3)
    forked("tools/train.py", *killed)
    assert_same_training(whole / norm, tmp_path / norm)
