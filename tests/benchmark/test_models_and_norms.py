"""tools/benchmark.py on settings small enough for a test; no time is asserted."""

from __future__ import annotations

import argparse
import json
import re

import pytest
import torch

from vision.benchmark import diagnostics, mae, models, peers
from vision.benchmark.diagnostics import benchmark_diagnostics
from vision.benchmark.mae import benchmark_mae
from vision.benchmark.models import chosen_norms
from vision.benchmark.norms import SMALL, WIDTHS, implementations, saved_bytes
from vision.benchmark.supervised import ModelSettings
from vision.norms import list_norms


def test_norms_measures_every_norm_at_every_shape(forked, tmp_path):
    small = ["--batch", 1, "--rounds", 1, "--no-torch-compile", "--json", tmp_path / "n.json"]
    result = forked("tools/benchmark.py", "norms", *small)
    results = json.loads((tmp_path / "n.json").read_text())["results"]
    found = implementations(torch.device("cpu"), compiled=False)
    assert len(results) == len(found) * (len(WIDTHS) + len(SMALL))
    assert {("seednorm", "compiled"), ("seednorm", "formula"), ("layernorm", "torch")} <= {
        (r["norm"], r["implementation"]) for r in results
    }
    assert all(r["forward"] > 0 and r["forward_backward_copy_fraction"] > 0 for r in results)
    assert all(r["bound"] > 0 for r in results)
    assert "seednorm" in result.stdout and "bound" in result.stdout


def test_norms_without_formulas_leaves_layernorm_and_the_kernels():
    found = implementations(torch.device("cpu"), compiled=True, formulas=False)
    assert {i.name for i in found} == {"torch", "compiled"}
    dropping = next(i for i in found if i.norm == "seednorm, dropout").make(32)
    assert dropping.dropout_rate == 0.1 and dropping.training


def test_saved_bytes_are_those_of_the_formulas():
    x = torch.randn(10, 192)
    kept = {
        (c.norm, c.name): saved_bytes(c.make(192), x)
        for c in implementations(torch.device("cpu"), compiled=False)
    }
    size = x.numel() * 4
    assert kept["layernorm", "torch"] == size + 10 * 2 * 4
    assert kept["seednorm", "compiled"] == size + 10 * (1 + 16) * 4


def measure(subject, *arguments):
    """As `tools/benchmark.py SUBJECT ARGUMENTS`, in this process."""
    parser = argparse.ArgumentParser()
    subject.add_arguments(parser)
    subject.run(parser.parse_args([*map(str, arguments), "--device", "cpu"]))


def test_models_measures_time_and_memory_in_every_task(tmp_path, capsys):
    names = ["test_vit", "mae:vit_tiny_patch16_224", "dit_tiny_8"]
    small = ["--models", *names, "--img-size", 160, "--batch", 1, "--rounds", 1]
    norms = ["--norms", "seednorm_dropout", "evonorm_s0"]
    measure(models, *small, *norms, "--json", tmp_path / "m.json")
    output = capsys.readouterr().out
    record = json.loads((tmp_path / "m.json").read_text())
    found = [(r["model"], r["task"], r["label"]) for r in record["results"]]
    assert [f for f in found if f[2] != "evonorm_s0"] == [
        (model, task, label)
        for model, task in zip(names, ("classify", "mae", "dit"), strict=True)
        for label in ("layernorm", "seednorm_dropout")
    ]
    assert "dit_tiny_8, evonorm_s0: not measured: " in output
    first, second = record["results"][:2]
    assert (first["step_ratio"], first["peak_ratio"]) == (1, 1)
    assert second["options"] == {"num_heads": 16, "coefficient_dropout": 0.1}
    assert second["peak_bytes"] > 1 << 20 and second["step"] > 0
    assert record["time"].startswith("20") and record["environment"]["git_commit"]


def test_peers_measures_the_plain_model_and_ours_in_turn(tmp_path, capsys):
    one = ["--models", "DiT-S/4", "--norms", "dyt", "--batch", 1, "--rounds", 1]
    measure(peers, *one, "--json", tmp_path / "p.json")
    plain, dyt = json.loads((tmp_path / "p.json").read_text())["results"]
    assert [plain["norm"], dyt["norm"]] == ["plain", "dyt"]
    assert "time / plain" in capsys.readouterr().out
    assert (plain["step_ratio"], plain["peak_ratio"]) == (1, 1)
    # one round: its ratio is that of the two times
    assert dyt["step_ratio"] == pytest.approx(dyt["step"] / plain["step"])
    assert dyt["peak_bytes"] > 33e6 * 16  # weights, gradients and AdamW's two


def test_all_norms_are_those_that_take_the_place_of_a_norm_and_the_variants_of_seednorm(capsys):
    norms = chosen_norms(["all"])
    assert next(iter(norms)) == "layernorm" and len(norms) == len(list_norms()) - 1 + 2
    assert norms["seednorm"] == ("seednorm", {"num_heads": 16})
    assert "evonorm_s0" in capsys.readouterr().out and "evonorm_s0" not in norms


def test_unknown_norms_and_models_are_named_before_the_first_step(forked):
    for arguments, expected in (
        (["models", "--norms", "sednorm"], "--norms sednorm: .*seednorm"),
        (["peers", "--models", "DiT-S"], "--models DiT-S: .*DiT-S/4"),
    ):
        assert re.search(expected, forked("tools/benchmark.py", *arguments, code=2).stderr)


def test_a_peer_that_cannot_run_here_is_a_one_line_error(forked):
    if torch.cuda.is_available():
        return
    asked = ["norms", "--peer", "liger", "--device", "cpu"]
    result = forked("tools/benchmark.py", *asked, code=2)
    assert "run on a GPU only" in result.stderr and "Traceback" not in result.stderr


def test_help_names_the_targets_as_targets(tool):
    text = tool("benchmark", "--help").stdout
    assert "Targets on a GPU, which nobody has measured yet" in text and "90 %" in text


def test_mae_measures_all_steps_in_one_run():
    settings = ModelSettings(model="vit_tiny_patch16_224", batch=1, img_size=32)
    supervised, published, half = benchmark_mae(settings, rounds=1)
    assert (supervised.decoder_depth, published.decoder_depth, half.decoder_depth) == (None, 8, 4)
    assert supervised.step_ratio == 1 and supervised.step > 0
    assert published.step_ratio == published.step / supervised.step


def test_diagnostics_are_measured_against_the_same_steps_unwatched():
    settings = ModelSettings(model="vit_tiny_patch16_224", batch=1, img_size=32)
    result = benchmark_diagnostics(settings, "seednorm", rounds=1)
    watched = pytest.approx((19 * result.step + result.watched) / 20)
    assert result.step_ratio * result.step == watched


@pytest.mark.parametrize(("subject", "rows"), [(mae, 3), (diagnostics, 2)])
def test_results_are_printed_and_written_with_the_machine(subject, rows, tmp_path, capsys):
    small = ["--model", "vit_tiny_patch16_224", "--img-size", 32, "--batch", 1, "--rounds", 1]
    file = tmp_path / "r.json"
    measure(subject, *small, "--json", file)
    record = json.loads(file.read_text())
    assert len(record["results"]) == rows and record["environment"]["packages"]["torch"]
    assert "vit_tiny_patch16_224, batch 1" in capsys.readouterr().out
