"""Pipelines that sample from a run, or from a model in training."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vision.checkpoints.load_run import load_run
from vision.config import Config
from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import create_scheduler
from vision.diffusion.vae import load_vae, vae_name


def load_pipeline(
    run_or_checkpoint: str | Path, which: str = "last", ema: bool = True, sampler: str = "ddpm"
) -> DiTPipeline:
    """Load a pipeline in eval mode, float32, on the CPU.

    Args:
        run_or_checkpoint: Run directory, its .ckpt file, or a folder written by
            `DiTPipeline.save_pretrained`.
        which: Checkpoint of a run directory, "last" or "best".
        ema: Take the averaged weights if the run has them.
        sampler: See `vision.diffusion.schedulers.create_scheduler`.

    Raises:
        FileNotFoundError, ValueError: with the reason.
    """
    path = Path(run_or_checkpoint)
    if (path / "model_index.json").is_file():
        pipeline = DiTPipeline.from_pretrained(path)
        prediction = pipeline.scheduler.config.prediction_type
        learned = pipeline.transformer.config.learn_sigma
        pipeline.scheduler = create_scheduler(sampler, prediction, learned)
        return pipeline
    run = load_run(path, "dit", which, ema=None if ema else False)
    return make_pipeline(run.model, run.config, run.class_names, sampler)


def make_pipeline(
    model: nn.Module, config: Config, class_names: list[str], sampler: str
) -> DiTPipeline:
    """A pipeline of a model that was built from `config`."""
    scheduler = create_scheduler(sampler, config.dit.prediction, config.dit.learn_sigma)
    names = {str(number): name for number, name in enumerate(class_names)}
    vae = load_vae(vae_name(config)) if config.data.name == "latents" else None
    return DiTPipeline(model, scheduler, vae, names)  # type: ignore[arg-type]
