"""tools/benchmark.py gpu: what it writes, on sizes for a CPU; and what it says without a GPU."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from vision.benchmark import gpu, steps
from vision.benchmark.gpu_table import markdown
from vision.benchmark.steps import StepSettings
from vision.environment import environment_record

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 1, "num_heads": 2}
TINY = (
    StepSettings("ViT", "classify", "vit_tiny_patch16_224", 2, 32, 3, SMALL),
    StepSettings("MAE", "mae", "vit_tiny_patch16_224", 2, 64, 3, SMALL),
    StepSettings("DiT", "dit", "dit_b_4", 2, 8, 4, SMALL),
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure for minutes")
def test_without_a_gpu_it_ends_with_one_line(forked) -> None:
    result = forked("tools/benchmark.py", "gpu", code=2)
    assert result.stderr.count("\n") == 1 and "no GPU here" in result.stderr


def test_the_record_and_the_table_hold_every_norm_and_step(tmp_path: Path) -> None:
    sizes = gpu.Sizes(1, TINY, norm_rounds=1, rounds=1, warm_up=0, compiled=(False,))
    tests = {"code": 1, "summary": "1 failed, 2 passed in 3.00s", "failures": ["FAILED a::b"]}
    gpu.measure(torch.device("cpu"), sizes, tmp_path, lambda: tests)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert [(s["model"], s["norm"]) for s in record["steps"]] == [
        (settings.model, norm) for settings in TINY for norm in ("layernorm", "seednorm")
    ]
    assert all(s["seconds"] > 0 and not s["failure"] for s in record["steps"])
    text = (tmp_path / "gpu.md").read_text()
    assert "1 failed, 2 passed" in text and "- FAILED a::b" in text
    for result in record["norms"]:
        assert f"| {result['norm']} | {result['implementation']} |" in text
    assert "| DiT | 2 | layernorm | no | " in text
    widths = {len(row.split("|")) for row in text.splitlines() if row.startswith("| ViT")}
    assert widths == {9}
    layernorm = next(r for r in record["norms"] if r["norm"] == "layernorm")
    moved = 2 * 2 * layernorm["rows"] * layernorm["dim"] / layernorm["forward"] / 1e9
    assert f"| {moved:.0f} |" in text


def test_what_does_not_fit_into_the_time_is_named() -> None:
    sizes = gpu.Sizes(steps=TINY[:1])
    steps = list(gpu._steps(torch.device("cpu"), sizes, deadline=0))
    assert len(steps) == 4 and not any(step.seconds for step in steps)
    record = {
        "environment": environment_record(), "wall_seconds": 1, "norms": [],
        "tests": {"summary": "", "failures": []}, "steps": [asdict(step) for step in steps],
    }  # fmt: skip
    assert "| ViT | 2 | seednorm | yes | not measured: out of time |" in markdown(record)


def test_the_published_models_are_meant() -> None:
    with torch.device("meta"):
        counts = {
            s.model: sum(p.numel() for p in steps.create(s, "layernorm", False).model.parameters())
            for s in steps.STEPS
        }
    assert counts["ViT-B"] == 86_567_656
    assert 105e6 < counts["MAE-B"] < 115e6 and 125e6 < counts["DiT-B/4"] < 135e6
