"""Schedulers of diffusers for the linear schedule of `vision.diffusion.objective`."""

from __future__ import annotations

import inspect
from typing import get_args

import numpy as np
import torch
from diffusers import (
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
# ways to choose the timesteps of a solver, which leave no place for given ones
_SPACINGS = ("use_karras_sigmas", "use_lu_lambdas", "use_exponential_sigmas", "use_beta_sigmas")


def create_scheduler(
    sampler: str, prediction: Prediction = "epsilon", learn_sigma: bool = True
) -> SchedulerMixin:
    """The scheduler of a sampler. Raises ValueError for an unknown name.

    ddpm uses the learned variance if there is one. ddim (eta 0) is DPM-Solver++ of order 1, which
    is the same update: diffusers' DDIMScheduler assumes that all timesteps are equally far apart,
    and rounded ones are not. Nothing is clipped, as published. The configuration of each says what
    any other needs to know, so that `from_config` makes the same of all.
    """
    options = {
        "num_train_timesteps": NUM_TIMESTEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "linear",
        "prediction_type": prediction,
        "timestep_spacing": "linspace",
    }
    for_ddpm = {
        "variance_type": "learned_range" if learn_sigma else "fixed_small",
        "clip_sample": False,
    }
    if sampler == "ddpm":
        return DDPMScheduler(**options, **for_ddpm)
    if sampler in ("ddim", "dpm++"):
        order = 1 if sampler == "ddim" else 2
        solver = DPMSolverMultistepScheduler(
            **options,
            solver_order=order,
            final_sigmas_type="zero",
            variance_type=for_ddpm[
                "variance_type"
            ],  # not as a default, which from_config leaves out
        )
    elif sampler == "unipc":
        solver = UniPCMultistepScheduler(**options, final_sigmas_type="zero")
    else:
        raise ValueError(f"sampler {sampler!r}: expected one of {', '.join(SAMPLERS)}")
    solver.register_to_config(**for_ddpm)
    return solver


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

    ddpm and ddim take evenly spaced timesteps from the last one to 0, as the published code does,
    and all take the last one if it is the only one. Raises ValueError for a number of steps that is
    not from 1 to 1000, or that the scheduler cannot take different noise levels for.
    """
    config = scheduler.config
    most = config.num_train_timesteps
    check_steps(num_inference_steps, most)
    even = np.linspace(0, most - 1, num_inference_steps).round().astype(np.int64)[::-1].copy()
    if num_inference_steps == 1:
        even[0] = most - 1
    if _takes_even(scheduler) and config.timestep_spacing == "linspace":
        scheduler.set_timesteps(timesteps=even.tolist(), device=device)
    else:
        scheduler.set_timesteps(num_inference_steps, device=device)
    if num_inference_steps == 1 and isinstance(scheduler, DDIMScheduler):
        scheduler.timesteps = torch.from_numpy(even).to(device)  # its own would be 0
    _check_timesteps(scheduler, num_inference_steps)
    return scheduler.timesteps


def _takes_even(scheduler: SchedulerMixin) -> bool:
    """Whether it is ddpm or ddim, to which timesteps can be given."""
    if isinstance(scheduler, _DDPM):
        return True
    config = scheduler.config
    first_order = isinstance(scheduler, DPMSolverMultistepScheduler) and config.solver_order == 1
    return first_order and not any(config.get(key) for key in _SPACINGS)


def _check_timesteps(scheduler: SchedulerMixin, num_inference_steps: int) -> None:
    """Raise ValueError where there is nothing to remove noise from, or no distance to go."""
    name = type(scheduler).__name__
    solver = "solver_order" in inspect.signature(type(scheduler)).parameters
    if solver and (scheduler.sigmas[1:] == scheduler.sigmas[:-1]).any():
        raise ValueError(
            f"num_inference_steps = {num_inference_steps}: {name} would take a timestep twice, "
            f"and divide by the distance; use at most {num_inference_steps - 1}"
        )
    if scheduler.timesteps.max() == 0:
        raise ValueError(
            f"num_inference_steps = {num_inference_steps}: {name} would take timestep 0 alone, at "
            "which there is no noise; use 2 or more"
        )


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
    if learned:
        # a solver made by `from_config` of a ddpm scheduler inherits its variance_type, and would
        # cut the model's output to three channels, whatever C is
        scheduler.register_to_config(variance_type=None)
    try:
        return scheduler.step(output[:, : x.shape[1]], t, x, return_dict=False, **options)[0]
    finally:
        if learned:  # for `from_config` back to ddpm
            scheduler.register_to_config(variance_type=variance)
