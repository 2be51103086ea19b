"""A disk that fills up at any file of a run: one line, nothing lost, and it goes on with space."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ARGUMENTS = [
    "configs/vit_ti.yaml", "norm.name=layernorm", "model.embed_dim=48", "model.depth=2",
    "model.num_heads=3", "optim.warmup_epochs=0.5", "trainer.epochs=2", "data.train_fraction=0.26",
    "trainer.batch_size_total=32", "trainer.progress_bar=false",
    "trainer.checkpoint_every_n_steps=4", "trainer.diagnostics_every_n_steps=4",
    "trainer.log_every_n_steps=2", "name=run", "--resume",
]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.campaign
def test_a_run_on_a_full_disk_ends_in_a_line_and_goes_on_with_space(
    disk: Path, number, forked, assert_same_training, tmp_path: Path
) -> None:
    forked("tools/train.py", *ARGUMENTS, f"output_dir={tmp_path / 'whole'}")
    whole = tmp_path / "whole" / "run"
    size = sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    steps = number(2, 20)
    for left in (size * part // steps for part in range(number(2, 1), steps + 1)):
        filler = disk / "filler"
        filler.write_bytes(bytes(16 * 2**20 - left - 4096 * 8))
        said = forked("tools/train.py", *ARGUMENTS, f"output_dir={disk}", code=None)
        assert said.returncode in (0, 1, 2)
        if said.returncode:
            assert said.stderr.splitlines()[-1].startswith("error: ")
            assert "Traceback" not in said.stderr and "No space left" in said.stderr
        filler.unlink()
        forked("tools/train.py", *ARGUMENTS, f"output_dir={disk}")
        assert_same_training(whole, disk / "run")
        shutil.rmtree(disk / "run")
