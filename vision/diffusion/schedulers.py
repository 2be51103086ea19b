"""diffusers' schedulers, set up for the linear schedule that models here are trained with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

from vision.config.schema import Prediction, Sampler
from vision.diffusion.objective import BETA_END, BETA_START, NUM_TIMESTEPS

SAMPLERS: tuple[str, ...] = get_args(Sampler)


def create_scheduler(
    sampler: str, prediction: Prediction = "epsilon", learn_sigma: bool = True
) -> SchedulerMixin:
    """The scheduler of a sampler.

    ddpm uses the learned variance where there is one. ddim (eta 0) is DPM-Solver++ of order 1,
    which is the same update: diffusers' DDIMScheduler assumes a stride that evenly respaced
    timesteps do not have. Nothing is clipped, as published. Raises ValueError for other names.
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
) -> torch.Tensor:
    """Prepare `scheduler` for one run and return its timesteps [num_inference_steps], descending.

    ddpm and ddim take evenly spaced timesteps from the last to 0, as the published code does.
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


def has_learned_variance(scheduler: SchedulerMixin) -> bool:
    """Whether its step takes the second half of a model's channels."""
    ancestral = isinstance(scheduler, (DDPMScheduler, DDPMParallelScheduler))
    return ancestral and _says_learned(scheduler)


@contextmanager
def whole_output(scheduler: SchedulerMixin) -> Iterator[None]:
    """Let `scheduler.step` use all channels that it is given.

    A solver made by diffusers' `from_config` of a ddpm scheduler inherits its variance_type;
    diffusers' then cut what the model predicts to three channels, whatever the number.
    """
    if has_learned_variance(scheduler) or not _says_learned(scheduler):
        yield
        return
    inherited = scheduler.config["variance_type"]
    scheduler.register_to_config(variance_type=None)
    try:
        yield
    finally:  # from_config back to ddpm finds it again
        scheduler.register_to_config(variance_type=inherited)


def _says_learned(scheduler: SchedulerMixin) -> bool:
    return scheduler.config.get("variance_type") in ("learned", "learned_range")
