"""A directory that cannot be written to, from the start or from any file on: one line, nothing
lost, and the run goes on where it can be written to again."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.campaign]
ROOT = Path(__file__).parents[2]
REASON = "Read-only file system"
# at which file of a run, its which opening, and how the run ends then; the first of them in CI
PLACES = [
    ("metrics.csv", 2, 1), ("summary.json", 1, 1),
    ("config.yaml", 1, 1), ("environment.json", 1, 1),
    ("metrics.csv", 1, 1), ("diagnostics.csv", 1, 1), ("diagnostics.csv", 2, 1),
    ("last.ckpt", 1, 1), ("last.ckpt", 2, 1), ("last.ckpt", 4, 1), ("best.ckpt", 1, 1),
    ("best.ckpt", 2, 1), ("test_predictions.npz", 1, 1), ("curves.png", 1, 1),
]  # fmt: skip
PICTURES = {
    "samples": ["configs/dit_b4.yaml", "dit.sample_every_n_steps=10", "dit.sample_steps=2"],
    "reconstructions": [
        "configs/mae_ti.yaml", "mae.decoder_embed_dim=32", "mae.decoder_num_heads=2",
    ],
}  # fmt: skip


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def make_writable(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def refused(said: subprocess.CompletedProcess, disk: Path) -> None:
    """One line that names what cannot be written, and nothing was computed."""
    (line,) = said.stderr.splitlines()
    assert line.startswith(f"error: {disk}") and REASON in line and ".tmp" not in line
    assert said.stdout == ""


def test_a_run_whose_disk_becomes_read_only_ends_in_a_line_and_goes_on(
    disk: Path, number, short_run: list[str], forked, assert_same_training, tmp_path: Path
) -> None:
    forked("tools/train.py", *short_run, f"output_dir={tmp_path / 'whole'}")
    whole = tmp_path / "whole" / "run"
    again = ["tools/train.py", *short_run, f"output_dir={disk}"]
    make_read_only(disk)
    refused(forked(*again, code=2), disk)
    make_writable(disk)
    for name, count, code in PLACES[: number(2, len(PLACES))]:
        said = forked("tests/read_only.py", disk, name, count, *again, code=code)
        assert "Traceback" not in said.stderr
        (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
        assert REASON in line and f"{disk}/run/{name}" in line and ".tmp" not in line
        refused(forked(*again, code=2), disk / "run")
        subprocess.run(["umount", str(disk)], check=True)  # the mount in front, and with it the ban
        forked(*again)
        assert_same_training(whole, disk / "run")
        assert sorted(p.name for p in whole.iterdir()) == sorted(
            p.name for p in (disk / "run").iterdir()
        )
        shutil.rmtree(disk / "run")


@pytest.mark.parametrize("kind", PICTURES)
def test_so_does_one_that_draws_pictures(
    kind: str,
    disk: Path,
    number,
    short_run: list[str],
    forked,
    assert_same_training,
    tmp_path: Path,
) -> None:
    if number(0, 1) == 0:
        pytest.skip("of the long campaign")
    arguments = [*PICTURES[kind], *short_run[1:]]
    forked("tools/train.py", *arguments, f"output_dir={tmp_path / 'whole'}")
    again = ["tools/train.py", *arguments, f"output_dir={disk}"]
    name = {"samples": "step_", "reconstructions": "0002.png"}[kind]
    said = forked("tests/read_only.py", disk, name, 1, *again, code=1)
    (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    assert REASON in line and f"/{kind}/{name}" in line
    subprocess.run(["umount", str(disk)], check=True)
    forked(*again)
    assert_same_training(tmp_path / "whole" / "run", disk / "run")


def test_a_folder_in_the_run_that_cannot_be_written_to_is_found_before_training(
    trained: Path, disk: Path, forked, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "trained"))
    (run / "summary.json").unlink()
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").symlink_to(disk)
    make_read_only(disk)
    before = sorted(run.rglob("*"))
    same = [run / "config.yaml", f"output_dir={tmp_path}", "--resume"]
    said = forked("tools/train.py", *same, code=2)
    refused(said, run / "tensorboard")
    assert sorted(run.rglob("*")) == before


def test_every_tool_finds_it_before_it_computes(
    disk: Path, trained: Path, trained_dit: Path, vae, forked, tmp_path: Path
) -> None:
    runs = Path(shutil.copytree(trained, disk / "trained"))
    grid = tmp_path / "grid.yaml"
    task = {"configs": [str(ROOT / "configs/vit_ti.yaml")]}
    grid.write_text(json.dumps({"norms": {"layernorm": {}}, "tasks": {"classify": task}}))
    shutil.copy(grid, tmp_path / "compare.yaml")
    vae().save_pretrained(tmp_path / "vae")
    images = ["configs/data/digits.yaml", "data.train_fraction=0.02"]
    out = disk / "new"
    make_read_only(disk)
    before = sorted(disk.rglob("*"))
    for arguments in (
        ["compare", grid, f"output_dir={disk}"],
        ["report", tmp_path, "--output", out],
        ["sample", trained_dit, "--out", out, "--number", 4],
        ["evaluate", runs],
        ["evaluate", trained, "--output", out],
        ["evaluate", trained, "--export", out],
        ["reconstruct", "a.ckpt", "a.png", "--output", disk / "a.png"],
        ["encode_latents", *images, "--vae", tmp_path / "vae", "--output", out],
        ["preview", ROOT / "configs/vit_ti.yaml", "--output", disk / "a.png"],
        ["anatomy", "layernorm", "--output", disk / "a.png"],
        ["fid", "--real", "a", "--fake", "b", "--json", disk / "a.json"],
        ["fid", "--real", "a", "--fake", "b", "--save-stats", out / "a.npz"],
    ):
        refused(forked(f"tools/{arguments[0]}.py", *arguments[1:], code=2), disk)
        assert sorted(disk.rglob("*")) == before


def test_samples_go_on_and_statistics_that_cannot_be_kept_cost_no_result(
    disk: Path, trained: Path, trained_dit: Path, forked, tmp_path: Path
) -> None:
    short = ["--number", 8, "--steps", 2, "--batch-size", 4]
    forked("tools/sample.py", trained_dit, *short, "--out", tmp_path / "whole")
    again = ["tools/sample.py", trained_dit, *short, "--out", disk / "out"]
    said = forked("tests/read_only.py", disk, "000004.png", 1, *again, code=1)
    assert REASON in said.stderr.splitlines()[-1] and "000004.png" in said.stderr
    refused(forked(*again, code=2), disk)
    subprocess.run(["umount", str(disk)], check=True)
    forked(*again)
    whole = tmp_path / "whole"
    for file in sorted(whole.rglob("*.*")):
        assert (
            disk / "out" / file.relative_to(tmp_path / "whole")
        ).read_bytes() == file.read_bytes()
    (disk / "cache").mkdir()
    make_read_only(disk)
    images = whole / "images"
    settings = ["--extractor", f"run:{trained}", "--device", "cpu", "--cache", disk / "cache"]
    said = forked("tools/fid.py", "--real", images, "--fake", images, *settings)
    (note,) = [line for line in said.stderr.splitlines() if line.startswith("note: ")]
    assert f"the statistics of {images} are not kept: {disk}" in note and REASON in note
    assert "8 real and 8 fake images" in said.stdout
