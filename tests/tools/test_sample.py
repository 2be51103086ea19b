"""From training to image files: a DiT through the command line, killed and resumed on the way."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vision.checkpoints.read import find_checkpoint
from vision.datasets.digits import DigitsReader
from vision.diffusion.load_pipeline import load_pipeline
from vision.diffusion.sample import sample_command
from vision.evaluation.classifier import Classifier, load_classifier, recognized

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "classes": None, "guidance_scale": 2.0, "num_inference_steps": 4, "sampler": "ddpm", "seed": 0,
    "batch_size": 4, "checkpoint": "last", "ema": True, "bf16": False,
}  # fmt: skip


@pytest.fixture
def run(trained_dit: Path) -> Path:
    """A finished run of a small DiT."""
    return trained_dit


def sample(run: Path, out: Path, n: int = 10, **options) -> None:
    sample_command(str(run), str(out), count=n, **{**OPTIONS, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "images").iterdir())}


@pytest.mark.slow
def test_resume_after_sigkill_is_bit_exact_average_included(
    run: Path, small_dit: list[str], forked, kill, assert_same_training, tmp_path: Path
) -> None:
    arguments = [*small_dit, f"output_dir={tmp_path}", "name=run", "--resume"]
    kill(arguments, saves=8)  # in the second epoch
    text = forked("tools/train.py", *arguments).stdout
    assert "resume  from step" in text
    assert "narrowed: depth 2 (of 12), embed_dim 32 (of 768)" in text
    again = tmp_path / "run"
    assert_same_training(run, again)
    state = torch.load(again / "last.ckpt", weights_only=True)["state_dict"]
    assert any(name.startswith("ema.module.") for name in state)
    with (again / "metrics.csv").open(newline="") as file:
        assert {"train/mse_q1", "val/ema_loss", "val/vb"} <= set(next(csv.reader(file)))
    grids = [(folder / "samples" / "step_0000030.png").read_bytes() for folder in (run, again)]
    assert grids[0] == grids[1]


@pytest.mark.slow
def test_the_grids_are_files_and_tensorboard_images(run: Path) -> None:
    with Image.open(run / "samples" / "step_0000030.png") as image:
        assert image.size == (10 * 34 + 2, 4 * 34 + 2)
    log = EventAccumulator(str(run / "tensorboard")).Reload()
    assert log.Tags()["images"] == ["samples"]
    assert [event.step for event in log.Images("samples")] == [30]


@pytest.mark.slow
def test_several_processes_make_the_images_of_one(
    run: Path, tool, environment: dict[str, str], tmp_path: Path, monkeypatch
) -> None:
    sample(run, tmp_path / "one")
    arguments = ["--out", tmp_path / "two", "--number", 10, "--steps", 4, "--batch-size", 4]
    command = [sys.executable, "tools/sample.py", run, *arguments]
    env = {**environment, "RANK": "1", "WORLD_SIZE": "2"}
    second = subprocess.Popen(list(map(str, command)), cwd=ROOT, env=env)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    sample(run, tmp_path / "two")  # waits for the other's files
    assert second.wait(120) == 0
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert len(one) == 10
    assert one == two
    for name in ("grid.png", "samples.npz"):
        assert (tmp_path / "two" / name).exists()


@pytest.mark.slow
def test_a_stopped_sampling_continues_without_repeating(run: Path, tmp_path: Path, capsys) -> None:
    sample(run, tmp_path)
    whole = files(tmp_path)
    for name in ("images/000005.png", "samples.npz", "grid.png"):
        (tmp_path / name).unlink()
    images = tmp_path / "images"
    stamps = {name: (images / name).stat().st_mtime_ns for name in files(tmp_path)}
    sample(run, tmp_path)
    assert files(tmp_path) == whole
    kept = [n for n, stamp in stamps.items() if (images / n).stat().st_mtime_ns == stamp]
    assert kept == [n for n in whole if n not in {f"{i:06d}.png" for i in range(4, 8)}]
    with pytest.raises(ValueError, match="holds images of num_inference_steps 4, asked for 5"):
        sample(run, tmp_path, num_inference_steps=5)


@pytest.mark.slow
@pytest.mark.slow
def test_one_folder_holds_images_of_one_checkpoint_and_one_kind_of_weights(
    run: Path, forked, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.copy(copy / "previous.ckpt", copy / "best.ckpt")
    command = ["tools/sample.py", copy, "--out", tmp_path / "out", "--number", 2, "--steps", 2]
    forked(*command)
    before = files(tmp_path / "out")
    for other in (["--checkpoint", "best"], ["--no-ema"]):
        said = forked(*command, *other, code=2)
        (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
        assert f"--out {tmp_path / 'out'}: holds images" in line
        assert files(tmp_path / "out") == before
        forked(*command[:2], "--out", tmp_path / "other", *command[4:], *other)
        assert files(tmp_path / "other") != before
        shutil.rmtree(tmp_path / "other")


def test_the_npz_is_laid_out_as_adm_reads_it(run: Path, tmp_path: Path) -> None:
    sample(run, tmp_path, classes=["7", "2"], n=5)
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as content:
        images, labels = content["arr_0"], content["arr_1"]
    assert images.shape == (5, 8, 8, 3) and images.dtype == np.uint8
    assert labels.tolist() == [7, 2, 7, 2, 7]
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "images" / "000003.png")), images[3, ..., 0]
    )
    other = tmp_path / "other"
    sample(run, other, classes=["7", "2"], n=5, ema=False)
    assert files(other) != files(tmp_path)


@pytest.mark.slow
def test_errors_of_the_tool_are_one_line(run: Path, trained: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"classes": ["11"]}, "class 11: expected a number from 0 to 9"),
        ({"num_inference_steps": 2000}, "num_inference_steps = 2000"),
        ({"n": 0}, "--number 0"),
    ):
        with pytest.raises(ValueError, match=message):
            sample(run, tmp_path, **options)
    with pytest.raises(ValueError, match="task classify, expected a checkpoint of task dit"):
        sample(trained, tmp_path)
    with pytest.raises(ValueError, match="no such checkpoint"):
        sample(tmp_path / "nowhere", tmp_path)


@pytest.mark.slow
def test_a_run_becomes_a_pipeline_that_can_be_saved(run: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(run, sampler="unipc")
    assert pipeline.transformer.blocks[0].norm1.num_heads == 4
    assert not pipeline.transformer.training
    options = {"num_inference_steps": 4, "output_type": "pt"}
    expected = pipeline([3], generator=torch.Generator().manual_seed(0), **options).images
    pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path, sampler="unipc")
    found = again(["3"], generator=torch.Generator().manual_seed(0), **options).images
    assert torch.equal(found, expected)
    last = load_pipeline(find_checkpoint(run), ema=False)
    averaged, plain = (p.transformer.state_dict() for p in (pipeline, last))
    assert not torch.equal(averaged["x_embedder.proj.weight"], plain["x_embedder.proj.weight"])


@pytest.mark.slow
def test_a_classifier_recognizes_real_digits_and_no_others(trained: Path) -> None:
    classifier: Classifier = load_classifier(trained)
    digits = DigitsReader("test")
    images = torch.from_numpy(digits.images)[:, None]
    right = recognized(images, digits.labels, classifier)
    top1 = json.loads((trained / "summary.json").read_text())["metrics"]["test/top1"]
    assert 100 * right.float().mean().item() == pytest.approx(top1, abs=0.6)
    probabilities = classifier.predict([image for image, _ in digits])
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(digits)))
    predicted = probabilities.argmax(1) == torch.tensor(digits.labels)
    assert 100 * predicted.float().mean().item() == pytest.approx(top1, abs=0.01)
    coloured = [digits[index][0].convert("RGB") for index in range(4)]
    torch.testing.assert_close(classifier.predict(coloured), probabilities[:4])
    shifted = [(label + 1) % 10 for label in digits.labels]
    assert recognized(images.expand(-1, 3, -1, -1), shifted, classifier).float().mean() < 0.2


@pytest.mark.slow
def test_a_dit_trains_on_encoded_latents_and_decodes_its_samples(
    forked, trained: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(tmp_path / "vae")
    arguments = ["--vae", tmp_path / "vae", "--output", tmp_path / "latents"]
    text = forked("tools/encode_latents.py", "configs/data/digits.yaml", *arguments).stdout
    assert "train            1,257 images" in text
    overrides = [
        "configs/recipes/imagenet_dit.yaml", "model.embed_dim=32", "model.depth=1",
        "model.num_heads=2", "model.patch_size=2", f"data.root={tmp_path / 'latents'}",
        "data.img_size=4", "data.num_workers=0", "dit.vae=null", "trainer.epochs=1",
        "trainer.progress_bar=false", "dit.sample_every_n_steps=4", "dit.sample_steps=2",
        f"output_dir={tmp_path}", "name=run",
        f"evaluation.extractor=run:{trained}", "evaluation.number=20", "evaluation.sampler=ddim",
        "evaluation.num_inference_steps=2", "evaluation.every_n_steps=4",
    ]  # fmt: skip
    forked("tools/train.py", "configs/dit_b4.yaml", "norm.name=layernorm", *overrides)
    found = json.loads((tmp_path / "run" / "evaluation" / "step_0000004.json").read_text())
    assert found["fid"] > 0
    real = {"name": "digits train", "count": 1257, "img_size": 8, "crop_pct": 1.0}
    assert found["settings"]["real"].items() >= real.items()
    assert (tmp_path / "run" / "samples" / "step_0000004.png").exists()
    sample(tmp_path / "run", tmp_path / "out", n=2)
    with Image.open(tmp_path / "out" / "images" / "000001.png") as image:
        assert image.size == (8, 8) and image.mode == "RGB"
