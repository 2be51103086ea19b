"""tools/benchmark.py on settings small enough for a test; no figure of time is judged."""

from __future__ import annotations

import json

import pytest
import torch

from vision.benchmark import report
from vision.benchmark.diagnostics import benchmark_diagnostics
from vision.benchmark.mae import benchmark_mae
from vision.benchmark.models import ModelSettings
from vision.benchmark.norms import WIDTHS, contenders, saved_bytes


def test_norms_measures_every_norm_at_every_shape(tool, tmp_path):
    files = ["--json", tmp_path / "n.json", "--plot", tmp_path / "n.png"]
    result = tool("benchmark", "norms", "--batch", 1, "--rounds", 1, "--no-torch-compile", *files)
    results = json.loads((tmp_path / "n.json").read_text())["results"]
    found = contenders(torch.device("cpu"), False, ())
    assert len(results) == len(found) * len(WIDTHS)
    assert {("seednorm", "compiled"), ("seednorm", "formula"), ("layernorm", "torch")} <= {
        (r["norm"], r["implementation"]) for r in results
    }
    assert all(r["forward"] > 0 and r["forward_backward_copy_share"] > 0 for r in results)
    assert "seednorm" in result.stdout and (tmp_path / "n.png").stat().st_size > 1000


def test_saved_bytes_are_those_of_the_formulas():
    x = torch.randn(10, 192)
    kept = {
        (c.norm, c.implementation): saved_bytes(c.make(192), x)
        for c in contenders(torch.device("cpu"), False, ())
    }
    size = x.numel() * 4
    assert kept["layernorm", "torch"] == size + 10 * 2 * 4
    assert kept["seednorm", "compiled"] == size + 10 * (1 + 16) * 4


def test_models_measures_time_and_memory(tool, tmp_path):
    small = ["--model", "test_vit", "--img-size", 160, "--batch", 1, "--rounds", 1]
    tool("benchmark", "models", *small, "--json", tmp_path / "m.json", "--plot", tmp_path / "m.png")
    first, second = json.loads((tmp_path / "m.json").read_text())["results"]
    assert (first["norm"], first["step_ratio"], first["peak_ratio"]) == ("layernorm", 1, 1)
    assert second["norm"] == "seednorm" and second["peak_bytes"] > 100 << 20


def test_a_peer_that_cannot_run_here_is_a_one_line_error(tool):
    if torch.cuda.is_available():
        return
    result = tool("benchmark", "norms", "--peer", "liger", "--device", "cpu", code=2)
    assert "run on a GPU only" in result.stderr and "Traceback" not in result.stderr


def test_help_names_the_targets_as_targets(tool):
    text = tool("benchmark", "--help").stdout
    assert "Targets on a GPU, which nobody has measured yet" in text and "90 %" in text


def test_mae_measures_all_steps_in_one_run():
    settings = ModelSettings(model="vit_tiny_patch16_224", batch=1, img_size=32)
    calls = []
    supervised, published, half = benchmark_mae(settings, rounds=1, progress=calls.append)
    assert (supervised.decoder_depth, published.decoder_depth, half.decoder_depth) == (None, 8, 4)
    assert supervised.step_ratio == 1 and supervised.step > 0
    assert published.step_ratio == published.step / supervised.step
    assert len(calls) == 3  # building, the uncounted round, one round


def test_diagnostics_are_measured_against_the_same_steps_unwatched():
    settings = ModelSettings(model="vit_tiny_patch16_224", batch=1, img_size=32)
    result = benchmark_diagnostics(settings, "seednorm", rounds=1)
    watched = pytest.approx((19 * result.step + result.watched) / 20)
    assert result.step_ratio * result.step == watched
    assert report.diagnostics_table([result]).row_count == 1
