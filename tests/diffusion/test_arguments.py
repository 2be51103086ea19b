"""What a pipeline is asked for in Python, also by way of a scheduler of diffusers: followed, or
refused where it makes no sense."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    UniPCMultistepScheduler,
)

from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import SAMPLERS, create_scheduler
from vision.models.dit import DiT
from vision.pictures import write_png


@pytest.fixture(scope="module")
def pipeline() -> DiTPipeline:
    torch.manual_seed(0)
    model = DiT(4, 2, 1, 24, 1, 3, num_classes=12)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    names = {str(number): f"class {number}" for number in range(12)}
    made = DiTPipeline(model.eval(), create_scheduler("ddpm"), None, names)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def images(pipeline: DiTPipeline) -> Callable[..., torch.Tensor]:
    def sample(class_labels=(0, 1), scheduler=None, **options) -> torch.Tensor:
        pipeline.scheduler = scheduler or create_scheduler("ddpm")
        seeds = {"generator": torch.Generator().manual_seed(0)}
        defaults = {"num_inference_steps": 2, "output_type": "latent"} | seeds
        return pipeline(class_labels, **(defaults | options)).images

    return sample


def generators(count: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_type": "png"}, "output_type = 'png': expected pil, np, pt, latent"),
        ({"output_type": None}, "output_type = None"),
        ({"guidance_interval": (0.8, 0.2)}, r"guidance_interval = \(0.8, 0.2\): expected 0 <= low"),
        ({"guidance_interval": (200, 800)}, r"guidance_interval = \(200, 800\)"),
        ({"guidance_interval": (float("nan"), 1)}, "guidance_interval"),
        ({"guidance_interval": (0.5,)}, "guidance_interval"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan: expected a number of at least 0"),
        ({"guidance_scale": -1.0}, "guidance_scale = -1"),
        ({"guidance_channels": 1.5}, "guidance_channels = 1.5: expected 1 to 1"),
        ({"class_labels": [3.7]}, "class 3.7: expected a number from 0 to 11, or a name"),
        ({"class_labels": torch.tensor([0.5])}, "class tensor"),
        ({"class_labels": [True]}, "class True"),
        ({"class_labels": [-1]}, "class -1"),
        ({"class_labels": "10"}, "class_labels = '10': expected a list"),
        ({"class_labels": "class 1"}, "class_labels = 'class 1': expected a list"),
        ({"class_labels": 3}, "class_labels = 3: expected a list"),
        ({"class_labels": []}, "expected at least one class, got none"),
        ({"generator": generators(1)}, "a list of 1 for 2 images"),
        ({"generator": generators(3)}, "a list of 3 for 2 images"),
        ({"generator": []}, "a list of 0 for 2 images"),
        ({"generator": [1, 2]}, r"expected a torch.Generator or a list of them, got \[1, 2\]"),
        ({"generator": 7}, "expected a torch.Generator or a list of them, got 7"),
        ({"num_inference_steps": 2.5}, "num_inference_steps = 2.5: expected 1 to 1000"),
        ({"num_inference_steps": 0}, "num_inference_steps = 0"),
        ({"latents": torch.zeros(2, 1, 4, 5)}, "latents: expected shape"),
        ({"latents": torch.full((2, 1, 4, 4), torch.nan)}, "latents: hold values that are not"),
    ],
)
def test_what_makes_no_sense_is_a_value_error(arguments, message: str, images) -> None:
    with pytest.raises(ValueError, match=message):
        images(**arguments)


def test_classes_are_whole_numbers_of_any_library(images) -> None:
    expected = images([10, 3])
    for given in (np.array([10, 3]), torch.tensor([10, 3]), ("class 10", 3)):
        assert torch.equal(images(given), expected)


def test_latents_are_returned_as_they_are(images) -> None:
    latents = images()
    assert latents.abs().max() > 1
    pixels = images(output_type="pt")
    torch.testing.assert_close(pixels, (latents / 2 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_single_step_starts_where_training_ended(sampler: str, pipeline, images) -> None:
    found = images(scheduler=create_scheduler(sampler), num_inference_steps=1)
    assert pipeline.scheduler.timesteps.tolist() == [999]
    expected = images(scheduler=create_scheduler("ddim"), num_inference_steps=1)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)
    if sampler != "ddim":
        swapped = DDIMScheduler.from_config(create_scheduler(sampler).config)
        again = images(scheduler=swapped, num_inference_steps=1)
        torch.testing.assert_close(again, expected, atol=1e-3, rtol=1e-4)


def test_a_scheduler_whose_only_step_has_no_noise_is_refused(images) -> None:
    scheduler = EulerDiscreteScheduler.from_config(create_scheduler("dpm++").config)
    with pytest.raises(ValueError, match="EulerDiscreteScheduler would take timestep 0 alone"):
        images(scheduler=scheduler, num_inference_steps=1)


@pytest.mark.parametrize("sampler", ["dpm++", "unipc"])
def test_solvers_refuse_a_timestep_twice(sampler: str, images) -> None:
    assert torch.isfinite(
        images(scheduler=create_scheduler(sampler), num_inference_steps=999)
    ).all()
    with pytest.raises(ValueError, match="would take a timestep twice, .*use at most 999"):
        images(scheduler=create_scheduler(sampler), num_inference_steps=1000)
    leading = UniPCMultistepScheduler.from_config(
        create_scheduler(sampler).config, timestep_spacing="leading"
    )
    with pytest.raises(ValueError, match="UniPCMultistepScheduler would take a timestep twice"):
        images(scheduler=leading, num_inference_steps=1000)


def test_images_that_are_not_finite_are_not_returned(images, tmp_path: Path) -> None:
    for output_type in ("pil", "np", "pt", "latent"):
        with pytest.raises(FloatingPointError, match="[12] of 2 images are not finite"):
            images(guidance_scale=1e38, output_type=output_type)
    for bad in (torch.nan, torch.inf):
        picture = torch.rand(3, 4, 4)
        picture[1, 2, 3] = bad
        with pytest.raises(FloatingPointError, match="not finite"):
            write_png(picture, tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


CONFIG = create_scheduler("dpm++").config


@pytest.mark.parametrize("steps", [7, 140])  # 1000/140 is not 7
def test_ddim_goes_from_each_of_its_timesteps_to_the_next(steps: int, images) -> None:
    euler = EulerDiscreteScheduler.from_config(CONFIG)  # the same path
    expected = images(scheduler=euler, num_inference_steps=steps)
    for spacing in ("linspace", "trailing"):
        ddim = DDIMScheduler.from_config(CONFIG, timestep_spacing=spacing)
        found = images(scheduler=ddim, num_inference_steps=steps)
        far = 1e-3 if spacing == "linspace" else 0.1
        assert (found - expected).abs().max() < far * expected.abs().max(), spacing


@pytest.mark.parametrize(
    "kind", [DDIMScheduler, DDPMScheduler, UniPCMultistepScheduler, EulerDiscreteScheduler]
)
def test_a_timestep_that_rounding_put_below_0_is_refused(kind, images) -> None:
    trailing = kind.from_config(CONFIG, timestep_spacing="trailing")
    assert torch.isfinite(images(scheduler=trailing, num_inference_steps=60)).all()
    for steps in (61, 122):
        with pytest.raises(
            ValueError, match=f"{steps}: {kind.__name__} would take .*-1; use a few"
        ):
            images(scheduler=trailing, num_inference_steps=steps)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_single_step_solvers_take_any_number_of_steps(order: int, images) -> None:
    expected = images(num_inference_steps=50, scheduler=create_scheduler("dpm++"))
    for steps in (10, 11, 12, 13, 14):
        solver = DPMSolverSinglestepScheduler.from_config(CONFIG, solver_order=order)
        found = images(scheduler=solver, num_inference_steps=steps)
        assert (found - expected).abs().max() < 0.05 * expected.abs().max(), steps


@pytest.mark.parametrize(
    "kind", [DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler]
)
def test_solvers_may_take_other_noise_levels(kind, images) -> None:
    expected = images(num_inference_steps=50, scheduler=create_scheduler("dpm++"))
    for steps in (12, 100):
        found = images(
            scheduler=kind.from_config(CONFIG, use_karras_sigmas=True), num_inference_steps=steps
        )
        assert (found - expected).abs().max() < 0.05 * expected.abs().max(), steps


def test_a_timestep_twice_is_taken_by_its_place(images) -> None:
    """The first two of 20 are 999, at two noise levels: diffusers would begin with the second."""
    cosine = {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}
    found = images(scheduler=DPMSolverMultistepScheduler(**cosine), num_inference_steps=20)
    assert torch.isfinite(found).all()


def test_no_noise_at_all_at_the_first_step_divides_by_zero(images) -> None:
    for kind in (DDIMScheduler, DDPMScheduler):
        scheduler = kind.from_config(
            CONFIG, rescale_betas_zero_snr=True, timestep_spacing="trailing"
        )
        with pytest.raises(FloatingPointError, match="[12] of 2 images are not finite"):
            images(scheduler=scheduler, num_inference_steps=10)


def test_schedulers_for_another_purpose_are_refused(images) -> None:
    for kind in (FlowMatchEulerDiscreteScheduler, EDMEulerScheduler, IPNDMScheduler):
        with pytest.raises(ValueError, match=f"scheduler = {kind.__name__}: is for another kind"):
            images(scheduler=kind())
    inverse = DDIMInverseScheduler.from_config(CONFIG, timestep_spacing="leading")
    with pytest.raises(ValueError, match="DDIMInverseScheduler adds noise"):
        images(scheduler=inverse, num_inference_steps=10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_saved_pipeline_loads_in_the_dtype_asked_for(dtype, pipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = DiTPipeline.from_pretrained(tmp_path, torch_dtype=dtype)
    assert loaded.dtype == dtype
    tensors = loaded.transformer.state_dict()
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    for name, tensor in pipeline.transformer.state_dict().items():
        assert torch.equal(tensors[name], tensor.to(dtype)), name
    loaded.save_pretrained(tmp_path / "again")
    again = DiT.from_pretrained(tmp_path / "again" / "transformer")  # float32, as diffusers does
    assert {tensor.dtype for tensor in again.state_dict().values()} == {torch.float32}
