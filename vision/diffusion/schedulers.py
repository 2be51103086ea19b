"""Schedulers of diffusers for the linear schedule of `vision.diffusion.objective`."""

from __future__ import annotations

import inspect
from typing import get_args

import numpy as np
import torch
from diffusers import (
    DDPMParallelScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from vision.config.schema import Prediction, Sampler
from vision.diffusion.objective import BETA_END, BETA_START, NUM_TIMESTEPS

SAMPLERS: tuple[str, ...] = get_args(Sampler)
Generators = torch.Generator | list[torch.Generator] | None


def create_scheduler(
    sampler: str, prediction: Prediction = "epsilon", learn_sigma: bool = True
) -> SchedulerMixin:
    """The scheduler of a sampler. Raises ValueError for an unknown name.

    ddpm uses the learned variance if there is one. ddim (eta 0) is DPM-Solver++ of order 1, which
    is the same update: diffusers' DDIMScheduler assumes that all timesteps are equally far apart,
    and rounded ones are not. Nothing is clipped, as published.
    """
    options = {
        "num_train_timesteps": NUM_TIMESTEPS,
        "beta_start": BETA_START,
        "beta_end": BETA_END,
        "beta_schedule": "linear",
        "prediction_type": prediction,
        "timestep_spacing": "linspace",
    }
    if sampler == "ddpm":
        variance = "learned_range" if learn_sigma else "fixed_small"
        return DDPMScheduler(**options, variance_type=variance, clip_sample=False)
    if sampler in ("ddim", "dpm++"):
        order = 1 if sampler == "ddim" else 2
        return DPMSolverMultistepScheduler(**options, solver_order=order, final_sigmas_type="zero")
    if sampler == "unipc":
        return UniPCMultistepScheduler(**options, final_sigmas_type="zero")
    raise ValueError(f"sampler {sampler!r}: expected one of {', '.join(SAMPLERS)}")


def set_timesteps(
    scheduler: SchedulerMixin, num_inference_steps: int, device: torch.device
) -> Tensor:
    """Prepare `scheduler` for sampling; returns its timesteps [num_inference_steps], descending.

    ddpm and ddim take evenly spaced timesteps from the last one to 0, as the published code does.
    Raises ValueError for a number of steps that is not from 1 to 1000.
    """
    most = scheduler.config.num_train_timesteps
    if not 1 <= num_inference_steps <= most:
        raise ValueError(f"num_inference_steps = {num_inference_steps}: expected 1 to {most}")
    first_order = scheduler.config.get("solver_order") == 1
    if first_order and isinstance(scheduler, DPMSolverMultistepScheduler):
        even = np.linspace(most - 1, 0, num_inference_steps).round().astype(np.int64)
        scheduler.set_timesteps(timesteps=even.tolist(), device=device)
    else:
        scheduler.set_timesteps(num_inference_steps, device=device)
    return scheduler.timesteps


def step(
    scheduler: SchedulerMixin, output: Tensor, t: Tensor, x: Tensor, generator: Generators
) -> Tensor:
    """`x` [B, C, H, W] one timestep less noisy, by the model's `output` [B, C or 2C, H, W] at t."""
    options = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = generator
    variance = scheduler.config.get("variance_type")
    learned = variance in ("learned", "learned_range")
    if learned and isinstance(scheduler, (DDPMScheduler, DDPMParallelScheduler)):
        return scheduler.step(output, t, x, return_dict=False, **options)[0]
    if learned:
        # a solver made by `from_config` of a ddpm scheduler inherits its variance_type, and would
        # cut the model's output to three channels, whatever C is
        scheduler.register_to_config(variance_type=None)
    try:
        return scheduler.step(output[:, : x.shape[1]], t, x, return_dict=False, **options)[0]
    finally:
        if learned:  # for `from_config` back to ddpm
            scheduler.register_to_config(variance_type=variance)
