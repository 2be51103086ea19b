"""From a run, or a model in training, to a pipeline that samples."""

from __future__ import annotations

import functools
import json
from pathlib import Path

from diffusers import AutoencoderKL
from torch import nn

from vision.checkpoints.load_run import load_run
from vision.config import Config
from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import create_scheduler


def load_pipeline(
    run_or_checkpoint: str | Path,
    which: str = "last",
    ema: bool = True,
    sampler: str = "ddpm",
) -> DiTPipeline:
    """The pipeline of a run directory (`which`: "last" or "best" checkpoint), of its .ckpt file, or
    of a folder that `DiTPipeline.save_pretrained` wrote; in eval mode, float32, on the CPU.

    `ema` takes the averaged weights where the run has them. Raises FileNotFoundError or ValueError
    with the reason.
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
    """A pipeline around a model that was built from `config`."""
    scheduler = create_scheduler(sampler, config.dit.prediction, config.dit.learn_sigma)
    names = {str(number): name for number, name in enumerate(class_names)}
    vae = load_vae(vae_name(config)) if config.data.name == "latents" else None
    return DiTPipeline(model, scheduler, vae, names)  # type: ignore[arg-type]


def vae_name(config: Config) -> str:
    """`dit.vae`, or what the latents say that they were made with. Raises FileNotFoundError."""
    if config.dit.vae is not None:
        return config.dit.vae
    index = Path(config.data.root or "") / config.data.train_split / "index.json"
    if not index.is_file():
        raise FileNotFoundError(f"dit.vae = null: and no {index} that names it; set dit.vae")
    return json.loads(index.read_text(encoding="utf-8"))["vae"]


@functools.lru_cache(maxsize=1)
def load_vae(name: str) -> AutoencoderKL:
    """An AutoencoderKL of the hub, or of a folder, in eval mode. Raises ValueError."""
    try:
        return AutoencoderKL.from_pretrained(name).requires_grad_(False).eval()
    except OSError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"dit.vae = {name!r}: no AutoencoderKL there ({reason})") from error
