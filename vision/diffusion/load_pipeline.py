"""Pipelines that sample from a run, or from a model in training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
from diffusers.utils import is_accelerate_available, logging
from safetensors import SafetensorError
from torch import nn

from vision.checkpoints.dit_formats import from_diffusers
from vision.checkpoints.load_run import load_run
from vision.checkpoints.read import check_finite
from vision.config import Config
from vision.diffusion.fingerprint import public_config
from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import create_scheduler
from vision.diffusion.vae import load_vae, vae_name
from vision.errors import first_line
from vision.notices import notice

_INDEX = "model_index.json"
# what diffusers does by itself, after three lines about a package that a small model does without
_QUIET = {"low_cpu_mem_usage": is_accelerate_available()}
_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


def load_pipeline(
    run_or_checkpoint: str | Path,
    which: str = "last",
    ema: bool = True,
    sampler: str | None = None,
) -> DiTPipeline:
    """Load a pipeline in eval mode, float32, on the CPU.

    Args:
        run_or_checkpoint: Run directory, its .ckpt file, or a folder written by
            `DiTPipeline.save_pretrained`, or by that of diffusers' own class for DiTs.
        which: Checkpoint of a run directory, "last" or "best".
        ema: Take the averaged weights if the run has them.
        sampler: See `vision.diffusion.schedulers.create_scheduler`; None: the scheduler in the
            folder, and "ddpm" for a run.

    Raises:
        FileNotFoundError, ValueError: with the reason.
    """
    path = Path(run_or_checkpoint)
    if (path / _INDEX).is_file():
        pipeline = _load_folder(path)
        if sampler is not None:
            _replace_scheduler(pipeline, sampler)
        return pipeline
    run = load_run(path, "dit", which, ema=None if ema else False)
    return make_pipeline(run.model, run.config, run.class_names, sampler or "ddpm")


def make_pipeline(
    model: nn.Module, config: Config, class_names: list[str], sampler: str
) -> DiTPipeline:
    """A pipeline of a model that was built from `config`."""
    scheduler = create_scheduler(sampler, config.dit.prediction, config.dit.learn_sigma)
    names = {str(number): name for number, name in enumerate(class_names)}
    vae = load_vae(vae_name(config)) if config.data.name == "latents" else None
    trained = config.dit.label_dropout > 0
    return DiTPipeline(model, scheduler, vae, names, trained)  # type: ignore[arg-type]


def _load_folder(path: Path) -> DiTPipeline:
    """A saved pipeline, ours or diffusers' own."""
    try:
        index: Any = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        kind = index["_class_name"]
        if kind == "DiTPipeline":  # ours has its file before the name
            with _without_bar():
                theirs = diffusers.DiTPipeline.from_pretrained(path, **_QUIET)
            _check_weights(theirs)
            return _from_diffusers(path, theirs, index.get("id2label"))
        if not isinstance(kind, list):
            raise ValueError(f"holds a {kind}")
        with _without_bar():
            pipeline = DiTPipeline.from_pretrained(path, **_QUIET)
        _check_weights(pipeline)
        return pipeline
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(
            f"{path}: cannot be loaded as a DiT pipeline: {first_line(error)}"
        ) from error


def _check_weights(pipeline: Any) -> None:
    """Raise ValueError where a part of it holds NaN or infinity."""
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            check_finite(part.state_dict(), name)


@contextmanager
def _without_bar() -> Iterator[None]:
    """Without diffusers' progress bar of three files."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _from_diffusers(path: Path, theirs: Any, names: dict[str, str] | None) -> DiTPipeline:
    notice(
        f"{path}: a DiT of diffusers; its weights are sampled with the published timestep "
        "frequencies, from which diffusers' own differ slightly"
    )
    transformer = from_diffusers(theirs.transformer).eval()
    pipeline = DiTPipeline(transformer, theirs.scheduler, theirs.vae, names)
    pipeline.labels |= theirs.labels  # a name there may be several, with commas between them
    return pipeline


def _replace_scheduler(pipeline: DiTPipeline, sampler: str) -> None:
    """Put in the scheduler of a sampler. Raises ValueError if the model has another schedule."""
    own = pipeline.scheduler.config
    prediction, learned = own.prediction_type, pipeline.transformer.config.learn_sigma
    scheduler = create_scheduler(sampler, prediction, learned)
    ours = public_config(scheduler)
    for key in _SCHEDULE:
        if own.get(key) != ours.get(key):
            raise ValueError(
                f"sampler = {sampler}: made for {key} {ours.get(key)}, and the pipeline's own "
                f"{type(pipeline.scheduler).__name__} has {own.get(key)}; leave it out to keep "
                "its own"
            )
    pipeline.scheduler = scheduler
