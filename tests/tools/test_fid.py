"""`tools/fid.py` through its command line, and metrics while a generator trains."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.mark.slow
def test_halves_of_the_digits_are_closer_than_noise(
    tool, forked, trained: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (360, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", arr_0=noise)
    shared = [
        "--extractor", f"run:{trained}", "--metrics", "fid,is,kid,prc", "--device", "cpu",
        "--kid-subset-size", "200", "--cache", tmp_path / "cache",
    ]  # fmt: skip
    data = "configs/data/digits.yaml"
    result = tool(
        "fid", "--real", data, "--fake", data, "--fake-split", "test", *shared,
        "--json", tmp_path / "real.json", "--save-stats", tmp_path / "stats.npz",
    )  # fmt: skip
    forked(
        "tools/fid.py", "--real", tmp_path / "stats.npz", "--fake", tmp_path / "noise.npz", *shared,
        "--json", tmp_path / "noise.json",
    )  # fmt: skip
    close, far = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("real", "noise"))
    assert 0 < close["fid"] < far["fid"] / 5
    assert close["kid"] < far["kid"] and close["precision"] > far["precision"]
    assert close["labels"]["fid"] == "FD[run:trained]"
    assert "FD[run:trained]" in result.stdout and "FID" not in result.stdout
    assert close["settings"]["real"]["count"] == 1257
    assert far["settings"]["real"]["count"] is not None
    assert close["fid_error"] > 0
    assert 0 < close["seconds"]["metrics"]["fid"] < close["seconds"]["total"]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_missing_weights_end_with_one_line_and_code_2(forked, tmp_path: Path) -> None:
    arguments = ["--real", tmp_path, "--fake", tmp_path, "--weights", tmp_path / "none.pth"]
    result = forked("tools/fid.py", *arguments, code=2)
    assert result.stderr.count("\n") == 1
    assert "none.pth: no such checkpoint" in result.stderr


@pytest.mark.slow
def test_metrics_during_training_are_logged_and_change_nothing(
    forked, trained: Path, tmp_path: Path
) -> None:
    small = [
        "configs/dit_b4.yaml", "configs/norm/seednorm.yaml",
        "model.embed_dim=32", "model.depth=1", "model.num_heads=2",
        "norm.options.num_heads=2", "trainer.epochs=1", "optim.warmup_epochs=0",
        "trainer.progress_bar=false", "dit.sample_every_n_steps=null", f"output_dir={tmp_path}",
    ]  # fmt: skip
    evaluated = [
        f"evaluation.extractor=run:{trained}", "evaluation.number=50", "evaluation.sampler=ddim",
        "evaluation.num_inference_steps=3", "evaluation.every_n_steps=10",
        "evaluation.metrics=[fid,is]",
    ]  # fmt: skip
    forked("tools/train.py", *small, "name=plain")
    forked("tools/train.py", *small, "name=evaluated", *evaluated)
    states = [
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "evaluated")
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    with open(tmp_path / "evaluated" / "metrics.csv", newline="") as file:
        found = {row["step"]: row["val/fd"] for row in csv.DictReader(file) if row["val/fd"]}
    assert list(found) == ["10", "19"]  # 1257 images in batches of 64: 19 steps
    summary = json.loads((tmp_path / "evaluated" / "summary.json").read_text())["metrics"]
    assert summary["val/fd"] == float(found["19"]) > 0
    assert "val/fid" not in summary and summary["val/is"] >= 1
    record = json.loads((tmp_path / "evaluated" / "evaluation" / "step_0000019.json").read_text())
    assert record["fid"] == summary["val/fd"]
    assert record["settings"]["fake"]["num_inference_steps"] == 3
    # the tool finds what training logged, of all real images whatever the number of generated ones
    sides = ["--real", "configs/data/digits.yaml", "--fake", tmp_path / "evaluated"]
    sampling = ["--number", 50, "--steps", 3, "--sampler", "ddim", "--seed", 0]
    options = ["--extractor", f"run:{trained}", "--metrics", "fid,is", "--device", "cpu"]
    where = ["--cache", tmp_path / "cache", "--json", tmp_path / "tool.json"]
    forked("tools/fid.py", *sides, *sampling, *options, *where)
    found = json.loads((tmp_path / "tool.json").read_text())
    assert found["settings"]["real"]["count"] == record["settings"]["real"]["count"] == 1257
    assert found["fid"] == pytest.approx(summary["val/fd"], rel=1e-3)
    assert found["fid_error"] == pytest.approx(summary["val/fd_error"], rel=1e-3)
    assert found["is_std"] == pytest.approx(summary["val/is_std"], rel=1e-3)
    assert found["is"] == pytest.approx(summary["val/is"], rel=1e-3)


def test_images_of_a_data_config_are_the_reference(forked, trained: Path, tmp_path: Path) -> None:
    arguments = [
        "configs/dit_b4.yaml", "norm.name=layernorm",
        "model.embed_dim=32", "model.depth=1", "model.num_heads=2", "trainer.max_steps=2",
        "optim.warmup_epochs=0", "data.num_workers=0", "dit.sample_every_n_steps=null",
        f"evaluation.extractor=run:{trained}", "evaluation.number=20", "evaluation.sampler=ddim",
        "evaluation.num_inference_steps=2", f"output_dir={tmp_path}",
    ]  # fmt: skip
    found = {}
    for name, reference in (("own", "null"), ("config", "configs/data/digits.yaml")):
        where = [f"name={name}", f"evaluation.reference={reference}"]
        forked("tools/train.py", *arguments, *where)
        found[name] = json.loads((tmp_path / name / "summary.json").read_text())["metrics"]
    assert found["config"]["val/fd"] == found["own"]["val/fd"] > 0
    record = json.loads((tmp_path / "config/evaluation/step_0000002.json").read_text())
    real = record["settings"]["real"]
    assert (real["name"], real["count"]) == ("configs/data/digits.yaml", 1257)
    larger = tmp_path / "larger.yaml"
    larger.write_text("data: {name: digits, img_size: 16}\n")
    where = ["name=refused", f"evaluation.reference={larger}"]
    said = forked("tools/train.py", *arguments, *where, code=2)
    line = said.stderr.splitlines()[-1]
    assert f"evaluation.reference = {larger}: its images are resized to 16 pixels" in line
    assert not (tmp_path / "refused").exists()
