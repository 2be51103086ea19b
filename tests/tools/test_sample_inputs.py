"""tools/sample.py and its kin with the folders and options that people give them."""

import json
import re
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image

from vision.checkpoints.dit_formats import to_diffusers
from vision.diffusion.generate import Sampling, generate
from vision.diffusion.load_pipeline import load_pipeline
from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import create_scheduler
from vision.models.dit import DiT

NAMES = {"0": "ant", "1": "bee, wasp", "2": "cat"}
SCHEDULE = {"beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing"}


def make(seed: int = 0, channels: int = 1, scheduler=None, learn_sigma=True) -> DiTPipeline:
    torch.manual_seed(seed)
    model = DiT(4, 2, channels, 24, 1, 3, num_classes=3, learn_sigma=learn_sigma)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return DiTPipeline(model.eval(), scheduler or create_scheduler("ddpm"), None, NAMES)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved pipeline."""
    make().save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture
def sample(forked, tmp_path: Path):
    """tools/sample.py, two images in two steps: what it printed."""

    def run(source: Path, *options: object, out: str = "out", code: int = 0) -> str:
        shared = ["--out", tmp_path / out, "--number", 2]
        steps = [] if "--steps" in options else ["--steps", 2]
        result = forked("tools/sample.py", source, *shared, *steps, *options, code=code)
        if code != 0:
            assert "Traceback" not in result.stderr
            assert result.stderr.splitlines()[-1].startswith("error: ")
        return result.stdout + result.stderr

    return run


def images(folder: Path) -> np.ndarray:
    files = sorted((folder / "images").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png"]
    return np.stack([np.asarray(Image.open(file)) for file in files])


def expected_images(pipeline: DiTPipeline, labels=(0, 1), **options) -> np.ndarray:
    sampling = Sampling(**{"num_inference_steps": 2, "guidance_scale": 2.0} | options)
    (found,) = generate(pipeline, labels, [0, 1], sampling, 100)
    return found.permute(0, 2, 3, 1).numpy().squeeze(-1 if found.shape[1] == 1 else ())


@pytest.fixture(scope="module")
def without_null(forked, small_dit: list[str], tmp_path_factory) -> Path:
    """A run that dropped no labels, with an older checkpoint beside the last."""
    home = tmp_path_factory.mktemp("without_null")
    forked(
        "tools/train.py", *small_dit, "dit.label_dropout=0", "dit.sample_every_n_steps=null",
        "model.depth=1", "trainer.epochs=null", "trainer.max_steps=4", f"output_dir={home}",
        "name=run",
    )  # fmt: skip
    return home / "run"


def test_a_folder_holds_images_of_one_set_of_weights(saved: Path, sample, tmp_path: Path) -> None:
    sample(saved)
    before = images(tmp_path / "out")
    assert "written" in sample(saved)  # the same again
    make(seed=1).save_pretrained(saved)
    said = sample(saved, code=2)
    assert f"--out {tmp_path / 'out'}: holds images of weights" in said
    np.testing.assert_array_equal(images(tmp_path / "out"), before)
    sample(saved, out="other")
    assert (images(tmp_path / "other") != before).any()


@pytest.mark.slow
def test_a_run_that_was_trained_on_is_another(without_null: Path, sample, tmp_path: Path) -> None:
    run = shutil.copytree(without_null, tmp_path / "run")
    sample(run, "--guidance", 1)
    before = images(tmp_path / "out")
    shutil.copy(run / "previous.ckpt", run / "last.ckpt")
    assert "holds images of weights" in sample(run, "--guidance", 1, code=2)
    np.testing.assert_array_equal(images(tmp_path / "out"), before)


@pytest.mark.slow
def test_a_null_class_that_was_not_trained_guides_nothing(
    without_null: Path, forked, small_dit: list[str], sample, tmp_path: Path
) -> None:
    for options in ([], ["--guidance", 4]):
        said = sample(without_null, *options, code=2)
        assert "the model was trained with dit.label_dropout=0" in said
    assert not (tmp_path / "out").exists()
    load_pipeline(without_null).save_pretrained(tmp_path / "saved")
    assert "dit.label_dropout=0" in sample(tmp_path / "saved", "--guidance", 0, code=2)
    sample(tmp_path / "saved", "--guidance", 1)
    where = [f"output_dir={tmp_path}", "name=refused", "dit.label_dropout=0"]
    metrics = ["evaluation.extractor=inception", "evaluation.guidance_scale=1.5"]
    for options, key in (
        ([], "dit.sample_guidance = 2.0"),
        (["dit.sample_guidance=1", *metrics], "evaluation.guidance_scale = 1.5"),
    ):
        said = forked("tools/train.py", *small_dit, *where, *options, code=2).stderr
        assert f"{key}: dit.label_dropout = 0 leaves the null class untrained" in said
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sampler", "dpm++", "--steps", "1000"], "num_inference_steps = 1000: DPMSolver"),
        (["--sampler", "unipc", "--steps", "1000"], "num_inference_steps = 1000: UniPC"),
        (["--guidance-interval", "0.8", "0.2"], "guidance_interval = (0.8, 0.2): expected 0 <="),
        (["--guidance-interval", "100", "900"], "guidance_interval = (100.0, 900.0)"),
        (["--guidance", "nan"], "guidance_scale = nan"),
        (["--guidance-channels", "2"], "guidance_channels = 2: expected 1 to 1"),
        (["--classes", "3.7"], "class '3.7': expected a number from 0 to 2, or a name (ant,"),
        (["--steps", "0"], "num_inference_steps = 0: expected 1 to 1000"),
    ],
)
def test_what_cannot_be_sampled_leaves_nothing_behind(
    options: list[str], message: str, saved: Path, sample, tmp_path: Path
) -> None:
    assert message in sample(saved, *options, code=2)
    assert not (tmp_path / "out").exists()


def test_images_that_are_not_finite_are_never_written(saved: Path, sample, tmp_path: Path) -> None:
    pipeline = make()
    pipeline.transformer.final_layer.linear.weight.data *= 1e37
    pipeline.save_pretrained(tmp_path / "large")
    for source, options in ((tmp_path / "large", []), (saved, ["--guidance", "1e38"])):
        said = sample(source, *options, out=source.name, code=3)
        assert "of 2 images are not finite and are not written" in said
        assert list((tmp_path / source.name).rglob("*.png")) == []


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_training_goes_on_without_images_that_are_not_finite(
    devices: int, forked, small_dit: list[str], trained: Path, tmp_path: Path
) -> None:
    said = forked(
        "tools/train.py", *small_dit, "dit.sample_guidance=1e38", "dit.sample_every_n_steps=1",
        f"evaluation.extractor=run:{trained}", "evaluation.number=8",
        "evaluation.guidance_scale=1e38", "evaluation.num_inference_steps=2",
        "model.depth=1", "trainer.epochs=null", "trainer.max_steps=2", "dit.zero_init=false",
        f"output_dir={tmp_path}", "name=run", f"trainer.devices={devices}",
        "trainer.accelerator=cpu",
    ).stderr  # fmt: skip
    for step in (1, 2):
        assert re.search(rf"step_000000{step}.png: not drawn: \d+ of 40 images are not", said)
    assert not list((tmp_path / "run").rglob("*.png.*")) and (tmp_path / "run/last.ckpt").exists()
    assert not list((tmp_path / "run" / "samples").iterdir())
    left_out = f"{8 // devices} of {8 // devices} images are not finite"
    assert f"no metrics of generated images at step 2: {left_out}" in said
    assert "val/fd" not in (tmp_path / "run" / "summary.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("warmup", "decay", "share"), [(False, 0.9999, "100%"), (False, 0.5, "25%"), (True, 0.9999, "")]
)
def test_an_average_that_is_still_the_start_is_told(
    warmup: bool, decay: float, share: str, forked, small_dit: list[str], tmp_path: Path
) -> None:
    short = ["model.depth=1", "trainer.epochs=null", "dit.sample_every_n_steps=null"]
    average = [f"ema.decay={decay}", f"ema.warmup={str(warmup).lower()}"]
    length = ["trainer.max_steps=2", f"output_dir={tmp_path}", "name=run"]
    said = forked("tools/train.py", *small_dit, *short, *length, *average).stdout
    told = f"average {share} of it is still the start weights at the end: ema.decay = {decay} is"
    assert (told in said) is not warmup


def test_one_step_of_ddpm_is_that_of_the_other_samplers(saved: Path, sample, tmp_path) -> None:
    found = {}
    for sampler in ("ddpm", "ddim", "dpm++", "unipc"):
        sample(saved, "--sampler", sampler, "--steps", 1, out=sampler)
        found[sampler] = images(tmp_path / sampler).astype(int)
    for sampler in ("ddim", "dpm++", "unipc"):
        assert abs(found[sampler] - found["ddpm"]).max() <= 1, sampler
    assert found["ddpm"].std() > 1  # not noise with timestep 0 taken off, nor all one value


def test_a_saved_pipeline_keeps_its_scheduler(fid, sample, tmp_path: Path) -> None:
    own = EulerDiscreteScheduler(**SCHEDULE)
    pipeline = make(scheduler=own)
    pipeline.save_pretrained(tmp_path / "euler")
    assert "sampler          EulerDiscreteScheduler, 2 steps" in sample(tmp_path / "euler")
    np.testing.assert_array_equal(images(tmp_path / "out"), expected_images(pipeline))
    pipeline.scheduler = create_scheduler("unipc")
    pipeline.save_pretrained(tmp_path / "unipc")
    assert "sampler          unipc, 2 steps" in sample(tmp_path / "unipc", out="unipc_out")
    np.testing.assert_array_equal(images(tmp_path / "unipc_out"), expected_images(pipeline))
    sample(tmp_path / "euler", "--sampler", "unipc", out="replaced")
    np.testing.assert_array_equal(images(tmp_path / "replaced"), images(tmp_path / "unipc_out"))
    np.savez(tmp_path / "real.npz", arr_0=np.zeros((4, 8, 8, 3), dtype=np.uint8))
    sides = ["--real", tmp_path / "real.npz", "--fake", tmp_path / "euler", "--number", 3]
    found, _ = fid(*sides, "--steps", 2)
    assert found["settings"]["fake"]["sampler"] == "EulerDiscreteScheduler"
    found, _ = fid(*sides, "--steps", 2, "--sampler", "ddim")
    assert found["settings"]["fake"]["sampler"] == "ddim"
    _, said = fid(*sides, "--steps", 0, code=2)
    assert "num_inference_steps = 0" in said


def test_a_sampler_of_another_schedule_is_refused(sample, tmp_path: Path) -> None:
    own = DDIMScheduler(**SCHEDULE | {"beta_end": 0.012}, clip_sample=False)
    make(scheduler=own).save_pretrained(tmp_path / "other")
    sample(tmp_path / "other")
    said = sample(tmp_path / "other", "--sampler", "ddim", out="refused", code=2)
    assert "made for beta_end 0.02, and the pipeline's own DDIMScheduler has 0.012" in said


@pytest.mark.parametrize("learn_sigma", [True, False])  # its config may leave out the channels
def test_a_folder_of_diffusers_own_dit_is_sampled(
    learn_sigma: bool, sample, vae, tmp_path: Path
) -> None:
    ours = make(channels=4, learn_sigma=learn_sigma)
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False)
    theirs = diffusers.DiTPipeline(to_diffusers(ours.transformer), vae(), scheduler)
    theirs.save_pretrained(tmp_path / "theirs")
    if not learn_sigma:
        config = tmp_path / "theirs" / "transformer" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"out_channels": None}))
    index = tmp_path / "theirs" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"id2label": NAMES}))
    said = sample(tmp_path / "theirs", "--classes", "bee", "2")
    assert "a DiT of diffusers; its weights are sampled with the published timestep" in said
    assert "sampler          DDIMScheduler" in said
    expected = DiTPipeline(ours.transformer, scheduler, theirs.vae, NAMES)
    found = images(tmp_path / "out")
    assert found.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(found, expected_images(expected, (1, 2)))


def test_other_folders_of_diffusers_are_refused_in_one_line(
    saved: Path, sample, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for content, message in (
        ('{"_class_name": "StableDiffusionPipeline"}', "holds a StableDiffusionPipeline"),
        ('{"_class_name": "DiTPipeline"}', "cannot be loaded as a DiT pipeline"),
        ("{", "cannot be loaded as a DiT pipeline"),
        ("[]", "cannot be loaded as a DiT pipeline"),
    ):
        (other / "model_index.json").write_text(content)
        assert message in sample(other, code=2)
    weights = saved / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{saved}: cannot be loaded as a DiT pipeline" in sample(saved, code=2)
    make().save_pretrained(saved)
    config = saved / "transformer" / "config.json"
    for depth, kind in ((2, "missing"), (0, "unexpected")):  # of 1
        config.write_text(json.dumps(json.loads(config.read_text()) | {"depth": depth}))
        said = sample(saved, code=2)
        assert re.search(rf"\d+ tensors are {kind}, such as blocks", said)
    make(channels=4).save_pretrained(tmp_path / "four")
    said = sample(tmp_path / "four", code=2)
    assert "makes images of 4 channels, and has no VAE to decode them" in said
    assert not (tmp_path / "out").exists()


def test_a_class_with_a_number_for_a_name_is_told(sample, tmp_path: Path) -> None:
    pipeline = make()
    names = {"0": "1", "1": "10", "2": "2"}  # as folders 1, 10 and 2 are sorted
    DiTPipeline(pipeline.transformer, pipeline.scheduler, None, names).save_pretrained(
        tmp_path / "saved"
    )
    said = sample(tmp_path / "saved", "--classes", "1", "2")
    assert "--classes 1: taken as a number; the class named 1 is number 0" in said
    assert "--classes 2" not in said


@pytest.mark.parametrize(("name", "numbers"), [("crane", "0 and 2"), ("ant", "0 and 1 and 2")])
def test_a_name_of_several_classes_is_none(name: str, numbers: str, sample, tmp_path: Path) -> None:
    names = {str(i): name if str(i) in numbers else "bee" for i in range(3)}
    DiTPipeline(make().transformer, create_scheduler("ddpm"), None, names).save_pretrained(tmp_path)
    said = sample(tmp_path, "--classes", name, code=2)
    assert f"class '{name}': the name of the classes {numbers}; give one of these numbers" in said
