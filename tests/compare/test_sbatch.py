"""The job scripts of a comparison, run by bash with stand-ins for SLURM's commands."""

import subprocess
from pathlib import Path

import pytest

from vision.compare.grid import load_compare
from vision.compare.runs import write_sbatch

ROOT = Path(__file__).parents[2]
SRUN = '#!/bin/sh\necho "srun $*" >> "$SAID"\nexit $CODE\n'
SCONTROL = '#!/bin/sh\necho "scontrol $*" >> "$SAID"\n'


@pytest.mark.parametrize(
    ("code", "queued"), [(0, ["srun --ntasks=1"]), (3, []), (75, ["scontrol requeue 40_1"])]
)
def test_a_job_runs_its_cell_and_is_queued_again_if_it_saved_itself(
    tmp_path: Path, code: int, queued: list[str]
) -> None:
    asked = "tasks.classify.evaluate=[corruptions]"
    overrides = [f"output_dir={tmp_path}", "tasks.classify.tune=null", asked]
    config = load_compare(ROOT / "configs/compare/digits.yaml", overrides)
    folder = tmp_path / "digits"
    folder.mkdir()
    write_sbatch(config, ["--gres=gpu:1"])
    script = folder / "classify.sbatch"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    said = tmp_path / "said"
    result = subprocess.run(
        ["bash", script],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin", "SAID": str(said), "CODE": str(code),
            "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1",
        },
    )  # fmt: skip
    assert result.returncode == code
    first, *rest = said.read_text().splitlines()
    assert first.startswith("srun --kill-on-bad-exit=1 ") and "name=layernorm_seed1" in first
    assert [said[: len(start)] for said, start in zip(rest, queued, strict=True)] == queued
    if code == 0:  # it is evaluated when it has ended well
        assert "evaluate.py" in rest[0] and "--split test" in rest[0]
        assert rest[0].endswith("classify/layernorm_seed1/evaluated --corruptions all")
    lines = script.read_text().splitlines()
    assert {"#SBATCH --requeue", "#SBATCH --signal=USR1@120", "#SBATCH --gres=gpu:1"} <= {*lines}
