"""`tools/evaluate.py` through its command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from vision.checkpoints.export import load_exported
from vision.checkpoints.model_card import wilson
from vision.evaluation.classifier import load_classifier

ROOT = Path(__file__).parents[2]


def test_the_metrics_of_a_run_are_found_again(tool, trained: Path) -> None:
    result = tool("evaluate", trained)
    summary = json.loads((trained / "summary.json").read_text())["metrics"]
    metrics = json.loads((trained / "evaluate_test.json").read_text())
    assert metrics["top1"] == summary["test/top1"]
    assert metrics["loss"] == pytest.approx(summary["test/loss"], rel=1e-5)
    assert metrics["images"] == 360
    confusion = np.array(metrics["confusion"])
    assert confusion.sum() == 360
    assert 100 * np.trace(confusion) / 360 == pytest.approx(metrics["top1"], rel=1e-6)
    assert metrics["images_per_sec"] > 0
    assert Image.open(trained / "confusion_test.png").size[0] > 500
    assert "top1" in result.stdout


def test_averaged_and_best_weights_can_be_asked_for(forked, trained: Path, tmp_path: Path) -> None:
    forked("tools/evaluate.py", trained, "--ema", "--output", tmp_path / "ema")
    summary = json.loads((trained / "summary.json").read_text())["metrics"]
    ema = json.loads((tmp_path / "ema" / "evaluate_test_ema.json").read_text())
    assert ema["top1"] == summary["test/ema_top1"]
    arguments = ["--checkpoint", "best", "--split", "validation", "--output", tmp_path / "best"]
    forked("tools/evaluate.py", trained, *arguments)
    best = json.loads((tmp_path / "best" / "evaluate_validation_best.json").read_text())
    assert best["top1"] >= summary["val/top1"]
    assert best["images"] == 180
    assert (tmp_path / "best/confusion_validation_best.png").exists()


def test_an_overlay_says_where_the_images_are(forked, trained: Path, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(60):
        folder = tmp_path / "val" / str(digits.target[index])
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.rint(digits.images[index] * 255 / 16).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    forked(
        "tools/evaluate.py", trained, "configs/data/imagefolder.yaml", f"data.root={tmp_path}",
        "data.num_workers=0", "--output", tmp_path / "metrics",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "metrics" / "evaluate_validation.json").read_text())
    assert metrics["images"] == 60
    # mostly training images, prepared as in training: only then are they recognised
    assert metrics["top1"] > 60


def load_as_the_card_says(folder: Path) -> torch.nn.Module:
    card = (folder / "README.md").read_text()
    names: dict[str, torch.nn.Module] = {}
    exec(card.partition("```python\n")[2].partition("```")[0], names)
    return names["model"]


def test_the_interval_is_wilsons() -> None:
    assert wilson(50, 100) == pytest.approx((40.38, 59.62), abs=0.01)
    assert wilson(100, 10)[1] == 100


def test_an_exported_run_gives_identical_logits(forked, trained: Path, tmp_path: Path) -> None:
    said = forked("tools/evaluate.py", trained, "--export", tmp_path).stdout
    held = "the weights (not the average) of last.ckpt, step 312, epoch 8"
    assert f"exported {held} in {trained} to" in said
    assert f"It holds {held}." in (tmp_path / "README.md").read_text()
    assert (tmp_path / "model.safetensors").exists()
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    original = load_classifier(trained).model
    with torch.no_grad():
        assert torch.equal(load_exported(tmp_path)(images), original(images))
        assert torch.equal(load_as_the_card_says(tmp_path)(images), original(images))
    assert "`seednorm (num_heads=4)`" in (tmp_path / "README.md").read_text()
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["norm"] == {"name": "seednorm", "options": {"num_heads": 4}}
    assert config["pretrained_cfg"]["input_size"] == [1, 8, 8]


def test_the_card_of_an_average_says_so(forked, trained: Path, tmp_path: Path) -> None:
    forked("tools/evaluate.py", trained, "--ema", "--export", tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "It holds the averaged weights of last.ckpt, step 312, epoch 8." in card


def test_an_exported_layernorm_run_is_a_timm_model(forked, small, tmp_path: Path) -> None:
    arguments = [*small, "trainer.epochs=1", f"output_dir={tmp_path}"]
    forked("tools/train.py", "configs/vit_ti.yaml", "norm.name=layernorm", *arguments)
    run = tmp_path / "vit_ti_layernorm"
    forked("tools/evaluate.py", run)
    forked("tools/evaluate.py", run, "--checkpoint", "best", "--split", "validation")
    forked("tools/evaluate.py", run, "--export", tmp_path / "exported")
    top1 = json.loads((run / "evaluate_test.json").read_text())["top1"]
    low, high = wilson(top1, 360)
    row = f"| test | last | top1 | {top1:.4g} | {low:.2f} to {high:.2f} |"
    card = (tmp_path / "exported/README.md").read_text()
    assert "| validation | best | top1 |" in card  # other weights do not replace these
    assert row in card and "library_name: timm" in card and low < top1 < high
    model = timm.create_model(f"local-dir:{tmp_path / 'exported'}", pretrained=True).eval()
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    carded = load_as_the_card_says(tmp_path / "exported").eval()
    with torch.no_grad():
        assert torch.equal(model(images), load_classifier(run).model(images))
        assert torch.equal(carded(images), model(images))


def test_a_timm_model_with_local_weights(forked, tmp_path: Path) -> None:
    name, size = "test_vit", 160
    model = timm.create_model(name, num_classes=2)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    noise = np.random.default_rng(0)
    for label in ("a", "b"):
        folder = tmp_path / "val" / label
        folder.mkdir(parents=True)
        for index in range(3):
            pixels = noise.integers(0, 255, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.jpg")
    forked(
        "tools/evaluate.py", name, "--weights", tmp_path / "weights.safetensors",
        "configs/data/imagefolder.yaml", f"data.root={tmp_path}", "--output", tmp_path / "out",
    )  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "evaluate_validation.json").read_text())
    assert metrics["images"] == 6


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["no/such/run"], "no such checkpoint"),
        (["README.md"], "not a checkpoint"),
        (["vit_nonsense", "--weights", "README.md"], "timm model"),
    ],
)
def test_what_is_no_model_is_refused(forked, arguments: list[str], expected: str) -> None:
    result = forked("tools/evaluate.py", *arguments, code=2)
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_a_pickle_that_wants_to_run_code_is_refused(forked, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "it_ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    result = forked("tools/evaluate.py", tmp_path / "evil.ckpt", code=2)
    assert "might run code" in result.stderr
    assert not (tmp_path / "it_ran").exists()


def test_calibration_classes_and_corruptions_are_evaluated(
    forked, trained: Path, tmp_path: Path
) -> None:
    names = "gaussian_noise,jpeg"
    result = forked("tools/evaluate.py", trained, "--corruptions", names, "--output", tmp_path)
    metrics = json.loads((tmp_path / "evaluate_test.json").read_text())
    assert 0 < metrics["calibration_error"] < 100
    per_class = np.array(metrics["per_class"])
    counts = np.array(metrics["confusion"]).sum(1)
    assert (per_class * counts).sum() / 360 == pytest.approx(metrics["top1"], rel=1e-6)
    noise = metrics["corruptions"]["gaussian_noise"]
    assert len(noise) == len(metrics["corruptions"]["jpeg"]) == 5
    assert noise[4] < noise[0] <= metrics["top1"] + 3
    assert "gaussian_noise" in result.stdout


def test_weights_of_a_run_that_diverged_are_refused(forked, trained: Path, tmp_path: Path) -> None:
    content = torch.load(trained / "last.ckpt", weights_only=True)
    content["state_dict"]["model.head.bias"][2] = float("nan")
    torch.save(content, tmp_path / "last.ckpt")
    for tool, more in (("evaluate", []), ("anatomy", ["--output", tmp_path / "a.png"])):
        run = [tmp_path / "last.ckpt"] if tool == "evaluate" else ["--run", tmp_path / "last.ckpt"]
        said = forked(f"tools/{tool}.py", *run, *more, code=2)
        assert said.stderr.splitlines()[-1].startswith(
            f"error: {tmp_path}/last.ckpt: head.bias holds numbers that are not finite; a run that "
        )


def test_without_a_test_split_what_is_evaluated_is_called_validation(
    forked, trained: Path, tmp_path: Path
) -> None:
    where = ["data.test_split=null", "--output", tmp_path]
    said = forked("tools/evaluate.py", trained, *where)
    assert said.stdout.startswith("no data.test_split: the validation split\n")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["confusion_validation.png", "evaluate_validation.json"]
    assert json.loads((tmp_path / names[1]).read_text())["split"] == "validation"


def test_an_upload_needs_an_export_and_a_token_and_is_refused_before_anything(
    forked, trained: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    asked = [trained, "--push-to-hub", "me/vit"]
    said = forked("tools/evaluate.py", *asked, code=2)
    assert said.stdout == "" and said.stderr.splitlines()[-1].endswith("give --export DIR too")
    command = [sys.executable, "tools/evaluate.py", *asked, "--export", tmp_path / "out"]
    alone = environment | {"HF_TOKEN": "", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: --push-to-hub me/vit: Token is required")
    assert line.endswith("a token that may write (hf auth login, or HF_TOKEN)")
    assert not (tmp_path / "out").exists()
