"""The DiT pipeline: parity of the sampling loops, guidance, labels, outputs, saving."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.schedulers import scheduling_ddpm
from safetensors.torch import load_file

from vision.checkpoints.dit_formats import from_official
from vision.diffusion.generate import Sampling, generate
from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import SAMPLERS, create_scheduler
from vision.models.dit import DiT

FIXTURES = Path(__file__).parents[1] / "fixtures"
NAMES = {"0": "zero", "1": "one", "2": "two"}


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "dit_tiny.safetensors")


@pytest.fixture(scope="module")
def official(reference) -> DiT:
    state = {k.removeprefix("state."): v for k, v in reference.items() if k.startswith("state.")}
    return from_official(state, num_heads=3).eval()


def make(sampler: str = "ddpm", channels: int = 1, vae=None) -> DiTPipeline:
    torch.manual_seed(0)
    model = DiT(8, 2, channels, 48, 2, 3, num_classes=3)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    pipeline = DiTPipeline(model.eval(), create_scheduler(sampler), vae, NAMES)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_ancestral_sampling_is_the_published_loop(reference, official, monkeypatch) -> None:
    noise = iter(reference["sample_noise"])
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *a, **k: next(noise))
    pipeline = DiTPipeline(official, create_scheduler("ddpm"))
    arguments = reference["sample_y"].tolist(), 1.0, 10
    found = pipeline(*arguments, latents=reference["sample_init"], output_type="latent").images
    assert pipeline.scheduler.timesteps.flip(0).tolist() == reference["respaced_timesteps"].tolist()
    # values reach 643: the last digits of float32 there are 6e-5 apart
    torch.testing.assert_close(found, reference["sample_out"], atol=1e-4, rtol=1e-6)


def test_ddim_is_the_published_loop(reference, official) -> None:
    pipeline = DiTPipeline(official, create_scheduler("ddim"))
    arguments = reference["sample_y"].tolist(), 1.0, 10
    found = pipeline(*arguments, latents=reference["sample_init"], output_type="latent").images
    torch.testing.assert_close(found, reference["ddim_out"], atol=1e-4, rtol=1e-6)


def test_guidance_on_three_channels_is_the_published_one(reference, official) -> None:
    pipeline = DiTPipeline(official, create_scheduler("ddpm"))
    x, t, y = (reference[f"cfg_{name}"] for name in ("x", "t", "y"))
    with torch.no_grad():
        found = pipeline.predict(x[:4], t[0], y[:4], 4.0, 3)
    torch.testing.assert_close(found, reference["cfg_out"][:4], atol=1e-5, rtol=0)


def test_guidance_mixes_class_and_null_class() -> None:
    pipeline = make()
    x, t, y = torch.randn(2, 1, 8, 8), torch.tensor(500), torch.tensor([0, 2])
    with torch.no_grad():
        conditional = pipeline.transformer(x, t, y).sample
        null = pipeline.transformer(x, t, torch.tensor([3, 3])).sample
        found = pipeline.predict(x, t, y, 3.0, 1)
    expected = null[:, :1] + 3 * (conditional - null)[:, :1]
    torch.testing.assert_close(found[:, :1], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, 1:], conditional[:, 1:], atol=1e-5, rtol=0)


def test_guidance_outside_its_interval_is_none() -> None:
    pipeline = make("ddim")
    start = torch.randn(1, 1, 8, 8)
    options = {"latents": start, "output_type": "latent", "num_inference_steps": 5}
    plain = pipeline([1], 1.0, **options).images
    never = pipeline([1], 4.0, guidance_interval=(0.9995, 1.0), **options).images
    partly = pipeline([1], 4.0, guidance_interval=(0.3, 0.8), **options).images
    always = pipeline([1], 4.0, **options).images
    assert torch.equal(plain, never)
    assert not torch.equal(partly, plain) and not torch.equal(partly, always)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_depends_on_its_own_generator_alone(sampler: str) -> None:
    pipeline = make(sampler)
    options = {"guidance_scale": 2.0, "num_inference_steps": 6, "output_type": "pt"}
    pair = pipeline([0, 2], generator=seeded(1, 2), **options).images
    again = pipeline([0, 2], generator=seeded(1, 2), **options).images
    alone = pipeline([2], generator=seeded(2), **options).images
    assert torch.equal(pair, again)
    torch.testing.assert_close(pair[1:], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(pair[:1], alone, atol=0.05)


def test_outputs_agree_whatever_their_type() -> None:
    pipeline = make()
    options = {"num_inference_steps": 3}
    tensor = pipeline(["two"], generator=seeded(1), output_type="pt", **options).images
    array = pipeline([2], generator=seeded(1), output_type="np", **options).images
    (picture,) = pipeline([2], generator=seeded(1), **options).images
    assert tensor.shape == (1, 1, 8, 8) and tensor.min() >= 0 and tensor.max() <= 1
    np.testing.assert_array_equal(tensor.permute(0, 2, 3, 1).numpy(), array)
    assert picture.mode == "L" and picture.size == (8, 8)
    np.testing.assert_allclose(np.asarray(picture) / 255, array[0, ..., 0], atol=0.51 / 255)
    (plain,) = pipeline([2], generator=seeded(1), output_type="pt", return_dict=False, **options)
    assert torch.equal(plain, tensor)


def test_what_cannot_be_sampled_is_named() -> None:
    pipeline = make()
    with pytest.raises(ValueError, match="class 3: expected a number from 0 to 2"):
        pipeline([3])
    with pytest.raises(ValueError, match=r"class 'four': .*zero, one, two"):
        pipeline(["four"])
    with pytest.raises(ValueError, match="num_inference_steps = 1001: expected 1 to 1000"):
        pipeline([0], num_inference_steps=1001)
    with pytest.raises(ValueError, match="guidance_channels = 3: expected 1 to 1"):
        pipeline([0], guidance_channels=3)
    with pytest.raises(ValueError, match="sampler 'euler': expected one of ddpm"):
        create_scheduler("euler")


def test_bf16_and_float32_give_nearly_the_same_image() -> None:
    pipeline = make("dpm++")
    options = {"num_inference_steps": 8, "guidance_scale": 2.0, "output_type": "latent"}
    exact = pipeline([0, 1, 2], generator=seeded(1, 2, 3), **options).images
    pipeline.transformer.to(torch.bfloat16)
    rounded = pipeline([0, 1, 2], generator=seeded(1, 2, 3), **options).images
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).abs().mean() / exact.abs().mean() < 0.02


def test_a_saved_pipeline_loads_in_a_fresh_process(tmp_path: Path) -> None:
    pipeline = make("dpm++")
    pipeline.save_pretrained(tmp_path)
    expected = pipeline(["one"], generator=seeded(5), num_inference_steps=4, output_type="pt")
    code = (
        "import sys, torch; from diffusers import DiffusionPipeline; "
        "p = DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True); "
        "g = [torch.Generator().manual_seed(5)]; "
        "x = p(['one'], generator=g, num_inference_steps=4, output_type='pt').images; "
        "torch.save(x, sys.argv[1] + '/x.pt'); print(type(p).__module__)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "vision.diffusion.pipeline", result.stderr
    assert torch.equal(torch.load(tmp_path / "x.pt", weights_only=True), expected.images)


def test_own_class_trusts_only_its_own_code(tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    assert DiTPipeline.from_pretrained(tmp_path).labels == {"zero": 0, "one": 1, "two": 2}
    (tmp_path / "pipeline.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        DiTPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("start", "channels", "learn_sigma"),
    [*((name, 1, True) for name in SAMPLERS), ("ddpm", 4, True), ("unipc", 1, False)],
)
def test_schedulers_made_by_from_config_take_the_place_of_ours(
    start: str, channels: int, learn_sigma: bool
) -> None:
    pipeline = make("ddpm", channels)

    def images(steps: int = 10) -> torch.Tensor:
        options = {"num_inference_steps": steps, "guidance_scale": 2.0, "output_type": "latent"}
        return pipeline([0, 2], generator=seeded(1, 2), **options).images

    expected = {}
    for sampler in SAMPLERS:
        pipeline.scheduler = create_scheduler(sampler, learn_sigma=learn_sigma)
        expected[sampler] = images(50 if sampler == "ddim" else 10)
    config = create_scheduler(start, learn_sigma=learn_sigma).config
    for kind, sampler in (
        (DPMSolverMultistepScheduler, "dpm++"),
        (UniPCMultistepScheduler, "unipc"),
        (DDPMScheduler, "ddpm"),
        (DDIMScheduler, "ddim"),
    ):
        pipeline.scheduler = kind.from_config(config)
        assert torch.equal(images(50 if sampler == "ddim" else 10), expected[sampler]), kind
    # the same path through the noise levels: by the same steps, by better ones
    for kind, tolerance in ((EulerDiscreteScheduler, 1e-3), (DPMSolverSinglestepScheduler, 0.02)):
        pipeline.scheduler = kind.from_config(config)
        error = (images(50) - expected["ddim"]).abs().max() / expected["ddim"].abs().max()
        assert error < tolerance, kind
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    assert torch.equal(images(), expected["ddpm"])


def test_latents_are_scaled_back_and_decoded() -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        scaling_factor=0.5,
    ).eval()
    options = {"num_inference_steps": 3, "output_type": "pt"}
    found = make(channels=4, vae=vae)([1], generator=seeded(1), **options).images
    options["output_type"] = "latent"
    raw = make(channels=4, vae=vae)([1], generator=seeded(1), **options).images
    with torch.no_grad():
        expected = (vae.decode(raw / 0.5).sample / 2 + 0.5).clamp(0, 1)
    assert found.shape == (1, 3, 16, 16)
    torch.testing.assert_close(found, expected)


def test_generated_images_do_not_depend_on_the_batch() -> None:
    pipeline = make("ddim")
    arguments = [0, 1, 2, 0, 1], [10, 11, 12, 13, 14]
    sampling = Sampling(seed=0, guidance_scale=2.0, num_inference_steps=4)
    batched = torch.cat(list(generate(pipeline, *arguments, sampling, batch_size=3)))
    single = torch.cat(list(generate(pipeline, [0], [13], sampling, batch_size=1)))
    assert batched.dtype == torch.uint8 and batched.shape == (5, 1, 8, 8)
    assert (batched[3:4].int() - single.int()).abs().max() <= 1
    reseeded = dataclasses.replace(sampling, seed=1)
    other = torch.cat(list(generate(pipeline, [0], [13], reseeded, batch_size=1)))
    assert not torch.equal(other, single)


def test_a_model_in_training_samples_in_eval_mode_and_goes_on_training() -> None:
    pipeline, modes = make("ddim"), []
    pipeline.transformer.train()
    pipeline.transformer.register_forward_pre_hook(lambda model, _: modes.append(model.training))
    for _ in generate(pipeline, [0, 1], [0, 1], Sampling(num_inference_steps=2), batch_size=1):
        assert pipeline.transformer.training
    assert modes == [False] * 4
