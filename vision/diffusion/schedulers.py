"""Schedulers of diffusers for the linear schedule of `vision.diffusion.objective`."""

from __future__ import annotations

import inspect
from fractions import Fraction
from typing import get_args

import torch
from diffusers import (
    DDIMParallelScheduler,
    DDIMScheduler,
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from vision.config.schema import Prediction, Sampler
from vision.diffusion.arguments import Generators, check_steps
from vision.diffusion.fingerprint import public_config
from vision.diffusion.objective import BETA_END, BETA_START, NUM_TIMESTEPS

SAMPLERS: tuple[str, ...] = get_args(Sampler)
_DDPM = (DDPMScheduler, DDPMParallelScheduler)
_DDIM = (DDIMScheduler, DDIMParallelScheduler)


def create_scheduler(
    sampler: str, prediction: Prediction = "epsilon", learn_sigma: bool = True
) -> SchedulerMixin:
    """The scheduler of a sampler. Raises ValueError for an unknown name.

    ddpm uses the learned variance if there is one; ddim has eta 0. Nothing is clipped, as
    published. The configuration of each says what any other needs to know, so that `from_config`
    makes the same of all.
    """
    options = {
        "num_train_timesteps": NUM_TIMESTEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "linear",
        "prediction_type": prediction,
        "timestep_spacing": "linspace",
    }
    variance = "learned_range" if learn_sigma else "fixed_small"
    if sampler == "ddpm":
        return DDPMScheduler(**options, variance_type=variance, clip_sample=False)
    if sampler == "ddim":
        scheduler = DDIMScheduler(**options, clip_sample=False)
    elif sampler == "dpm++":  # given as an argument: from_config leaves out what is a default
        scheduler = DPMSolverMultistepScheduler(**options, variance_type=variance)
    elif sampler == "unipc":
        scheduler = UniPCMultistepScheduler(**options)
    else:
        raise ValueError(f"sampler {sampler!r}: expected one of {', '.join(SAMPLERS)}")
    scheduler.register_to_config(variance_type=variance, clip_sample=False)
    return scheduler


def sampler_name(scheduler: SchedulerMixin) -> str:
    """The name that `create_scheduler` makes `scheduler` by, or that of its class."""
    config = public_config(scheduler)
    prediction = config.get("prediction_type", "epsilon")
    for name in SAMPLERS:
        ours = create_scheduler(name, prediction, config.get("variance_type") == "learned_range")
        if type(ours) is type(scheduler) and public_config(ours) == config:
            return name
    return type(scheduler).__name__


def set_timesteps(
    scheduler: SchedulerMixin, num_inference_steps: int, device: torch.device
) -> Tensor:
    """Prepare `scheduler` for sampling; returns its timesteps [num_inference_steps], descending.

    A single one is the last timestep of training. Raises ValueError for a number of steps that is
    not from 1 to 1000, or that the scheduler cannot take different noise levels for, and for a
    scheduler of another kind of noise.
    """
    name = type(scheduler).__name__
    if not isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor):
        raise ValueError(
            f"scheduler = {name}: is for another kind of noise than a DiT is trained on; expected "
            "one with betas, such as DDIMScheduler"
        )
    most = scheduler.config.num_train_timesteps
    check_steps(num_inference_steps, most)
    scheduler.set_timesteps(num_inference_steps, device=device)
    if num_inference_steps == 1 and isinstance(scheduler, (*_DDPM, *_DDIM)):
        scheduler.timesteps = scheduler.timesteps.new_tensor([most - 1])  # linspace gives 0
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # else looked for by the timestep, which may be there twice
    wrong = _wrong_timesteps(scheduler)
    if wrong is not None:
        raise ValueError(f"num_inference_steps = {num_inference_steps}: {name} {wrong}")
    return scheduler.timesteps


def _wrong_timesteps(scheduler: SchedulerMixin) -> str | None:
    """Why no image can come of the timesteps: nothing to remove noise from, or no distance."""
    timesteps = scheduler.timesteps
    if timesteps.min() < 0:
        return f"would take the timestep {int(timesteps.min())}; use a few more or less"
    solver = "solver_order" in inspect.signature(type(scheduler)).parameters
    # the last sigma is where sampling ends, which may be where it is
    if solver and (scheduler.sigmas[1:-1] == scheduler.sigmas[:-2]).any():
        fewer = len(timesteps) - 1
        return f"would take a timestep twice, and divide by the distance; use at most {fewer}"
    if timesteps.max() == 0:
        return "would take timestep 0 alone, at which there is no noise; use 2 or more"
    if timesteps[0] < timesteps[-1]:
        return "adds noise, from the first timestep to the last; use one that removes it"
    return None


def step(
    scheduler: SchedulerMixin, output: Tensor, t: Tensor, x: Tensor, generator: Generators
) -> Tensor:
    """`x` [B, C, H, W] one timestep less noisy, by the model's `output` [B, C or 2C, H, W] at t."""
    options = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = generator
    variance = scheduler.config.get("variance_type")
    learned = variance in ("learned", "learned_range")
    if isinstance(scheduler, _DDPM):
        output = output if learned else output[:, : x.shape[1]]
        result = scheduler.step(output, t, x, **options)
        # diffusers adds noise at every timestep but 0, also at a last one that is another
        last = t > 0 and t == scheduler.timesteps[-1]
        return result.pred_original_sample if last else result.prev_sample
    if isinstance(scheduler, _DDIM):
        _tell_distance(scheduler, t)
    if learned:
        # a solver made by `from_config` of a ddpm scheduler inherits its variance_type, and would
        # cut the model's output to three channels, whatever C is
        scheduler.register_to_config(variance_type=None)
    try:
        return scheduler.step(output[:, : x.shape[1]], t, x, return_dict=False, **options)[0]
    finally:
        if learned:  # for `from_config` back to ddpm
            scheduler.register_to_config(variance_type=variance)


def _tell_distance(scheduler: SchedulerMixin, t: Tensor) -> None:
    """Make a DDIM scheduler go to the next of its timesteps, or to the image.

    It goes down by `num_train_timesteps // num_inference_steps`, as if all its timesteps were
    equally far apart, which rounded ones are not (tried with diffusers 0.42).
    """
    later = scheduler.timesteps[scheduler.timesteps < t]
    distance = int(t - later.max()) if len(later) else int(t) + 1
    scheduler.num_inference_steps = Fraction(scheduler.config.num_train_timesteps, distance)
