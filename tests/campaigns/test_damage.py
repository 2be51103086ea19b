"""Checkpoints damaged at random are named and passed over, or were not damaged where it matters."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vision.checkpoints.load_run import load_run
from vision.checkpoints.read import read_checkpoint
from vision.training.resume import resume_point


def flip_a_bit(file: Path, chosen: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)
    file.write_bytes(content)


def fill_a_page(file: Path, chosen: random.Random) -> None:
    content = bytearray(file.read_bytes())
    start = chosen.randrange(max(1, len(content) - 4096))
    content[start : start + 4096] = bytes(chosen.randbytes(min(4096, len(content) - start)))
    file.write_bytes(content)


def cut(file: Path, chosen: random.Random) -> None:
    file.write_bytes(file.read_bytes()[: chosen.randrange(file.stat().st_size)])


def empty(file: Path, chosen: random.Random) -> None:
    file.write_bytes(b"")


def become_a_folder(file: Path, chosen: random.Random) -> None:
    file.unlink()
    file.mkdir()


def become_a_dangling_link(file: Path, chosen: random.Random) -> None:
    file.unlink()
    file.symlink_to(file.parent / "gone")


DAMAGES: dict[Callable[[Path, random.Random], None], int] = {  # and of ten, how many
    flip_a_bit: 4, fill_a_page: 2, cut: 1, empty: 1, become_a_folder: 1, become_a_dangling_link: 1,
}  # fmt: skip


def flat(content: object) -> list[object]:
    """All that a checkpoint holds, tensors as bytes."""
    if isinstance(content, dict):
        return [x for key in content for x in (key, *flat(content[key]))]
    if isinstance(content, (list, tuple)):
        return [x for value in content for x in flat(value)]
    return [content.numpy().tobytes() if isinstance(content, torch.Tensor) else content]


@pytest.mark.slow
@pytest.mark.campaign
def test_no_damage_is_taken_for_weights(trained: Path, number, tmp_path: Path, capsys) -> None:
    whole = flat(read_checkpoint(trained / "last.ckpt"))
    chosen = random.Random(0)
    tens = number(2, 20)
    passed, harmless = 0, 0
    for damage in [damage for damage, times in DAMAGES.items() for _ in range(times * tens)]:
        run = Path(shutil.copytree(trained, tmp_path / "run"))
        last = run / "last.ckpt"
        damage(last, chosen)
        point = resume_point(run, 39)
        step_file = None if point is None else point.file
        said = capsys.readouterr().out
        if step_file == last:  # a bit that no reader looks at
            assert flat(read_checkpoint(last)) == whole, damage.__name__
            harmless += 1
        else:
            assert step_file == run / "previous.ckpt"
            assert said.startswith(f"resume  skips {last}: ") and said.count("\n") == 1
            with pytest.raises((ValueError, FileNotFoundError), match="last.ckpt") as refusal:
                load_run(run, "classify")
            assert "\n" not in str(refusal.value)
            passed += 1
        shutil.rmtree(run)
    print(f"{passed} damaged checkpoints were named and passed over, {harmless} read as before")
    assert passed > harmless


@pytest.mark.slow
@pytest.mark.campaign
def test_commands_name_the_damage_and_end(trained: Path, forked, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / trained.name))
    (run / "summary.json").unlink()
    again = ["tools/train.py", run / "config.yaml", f"output_dir={tmp_path}", "--resume"]
    chosen = random.Random(1)
    kinds = list(DAMAGES)
    for pair in zip(kinds[:3], kinds[3:], strict=True):  # two kinds in each run
        files = [run / "last.ckpt", run / "previous.ckpt"]
        for file, damage in zip(files, pair, strict=True):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
            shutil.copy(trained / file.name, file)
            damage(file, chosen)
        before = {file: file.stat().st_mtime_ns for file in run.glob("*.csv")}
        said = forked(*again, code=2)
        (line,) = said.stderr.splitlines()
        assert line.startswith(f"error: {run / 'config.yaml'}") and str(files[1]) in line
        assert f"resume  skips {files[0]}: " in said.stdout
        for file, damage in zip(files, pair, strict=True):
            (line,) = forked("tools/evaluate.py", file, code=2).stderr.splitlines()
            assert line.startswith(f"error: {file}"), damage.__name__
        assert before == {file: file.stat().st_mtime_ns for file in run.glob("*.csv")}
