"""Class-conditional images from a `DiT`, as a diffusers pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from vision.diffusion.arguments import (
    Generators,
    OutputType,
    check_generator,
    check_guidance,
    check_guidance_channels,
    check_latents,
    check_output_type,
    class_numbers,
)
from vision.diffusion.schedulers import set_timesteps, step
from vision.diffusion.vae import decode
from vision.models.dit import DiT
from vision.pictures import check_finite

# diffusers imports classes that are not its own only through a file in the folder that it loads
_LOADER_NAME = "pipeline.py"
_LOADER = '''"""For `DiffusionPipeline.from_pretrained(FOLDER, trust_remote_code=True)`."""

from vision.diffusion.pipeline import DiTPipeline

__all__ = ["DiTPipeline"]
'''


class DiTPipeline(DiffusionPipeline):
    """Samples images of given classes.

    A saved pipeline is loaded by `DiTPipeline.from_pretrained(folder)`, and by
    `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)`: diffusers asks for that
    flag before it imports any class that is not its own.

    Args:
        transformer: The model. It computes in its own dtype, the scheduler always in float32.
        scheduler: See `vision.diffusion.schedulers.create_scheduler`; any diffusers scheduler with
            the same betas can take its place.
        vae: Decodes latents; None if the model generates pixels.
        id2label: Class names by number (as text, for JSON), so that labels can be names.
        null_class_trained: Whether labels were dropped in training, which guidance needs.
    """

    _optional_components = ["vae"]  # noqa: RUF012 (read by diffusers; tried with 0.42)
    model_cpu_offload_seq = "transformer->vae"

    def __init__(
        self,
        transformer: DiT,
        scheduler: DDPMScheduler,
        vae: AutoencoderKL | None = None,
        id2label: dict[str, str] | None = None,
        null_class_trained: bool = True,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, vae=vae)
        self.register_to_config(id2label=id2label, null_class_trained=null_class_trained)
        self.labels = {name: int(number) for number, name in (id2label or {}).items()}

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int | str],
        guidance_scale: float = 4.0,
        num_inference_steps: int = 50,
        generator: Generators = None,
        latents: Tensor | None = None,
        guidance_channels: int | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        output_type: OutputType = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """One image per class.

        Args:
            class_labels: Numbers or names of classes.
            guidance_scale: Classifier-free guidance; 1 is none, in half the time.
            num_inference_steps: Steps, 1 to 1000.
            generator: One for all images, or a list with one per image, so that an image does not
                depend on the rest of the batch.
            latents: Noise to start from, [B, C, H, W] float32 of unit variance; None: drawn.
            guidance_channels: How many channels to guide, from the first; None: all. The published
                samples guide 3 of 4.
            guidance_interval: Guide only while timestep/1000 is in this range, from 0 to 1
                (https://arxiv.org/abs/2404.07724).
            output_type: "pil", "np" [B, H, W, C] or "pt" [B, C, H, W], the latter two from 0 to 1;
                "latent", what the transformer made, [B, C, H, W], neither decoded nor clipped.
            return_dict: Return an `ImagePipelineOutput`; False: a tuple.

        Raises:
            ValueError: an unknown class, or an argument out of range.
            FloatingPointError: an image is not finite.
        """
        device = self._execution_device  # `device`, the public one, is the CPU under CPU offload
        labels = torch.tensor(self.label_ids(class_labels), device=device)
        channels = self.transformer.config.in_channels
        guided = channels if guidance_channels is None else guidance_channels
        check_output_type(output_type)
        check_generator(generator, len(labels))
        timesteps = self.check_sampling(
            num_inference_steps, guidance_scale, guided, guidance_interval
        )
        x = self._start(latents, len(labels), generator, device)
        low, high = guidance_interval
        for t in self.progress_bar(timesteps):
            within = low <= float(t) / self.scheduler.config.num_train_timesteps <= high
            output = self.predict(x, t, labels, guidance_scale if within else 1.0, guided)
            x = step(self.scheduler, output, t, x, generator)
        check_finite(x)
        images: Any = x if output_type == "latent" else self._decode(x)
        self.maybe_free_model_hooks()
        if output_type in ("pil", "np"):
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def label_ids(self, class_labels: Sequence[int | str]) -> list[int]:
        """Numbers of classes given by number or name. Raises ValueError for an unknown one."""
        pairs = [(name, int(number)) for number, name in (self.config.id2label or {}).items()]
        pairs += self.labels.items()  # a folder of diffusers has several names of a class there
        return class_numbers(class_labels, pairs, self.transformer.config.num_classes)

    def check_sampling(
        self,
        num_inference_steps: int,
        guidance_scale: float = 1.0,
        guidance_channels: int | None = None,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
    ) -> Tensor:
        """Raise ValueError for what cannot be sampled; returns the timesteps."""
        channels = self.transformer.config.in_channels
        if guidance_channels is not None:
            check_guidance_channels(guidance_channels, channels)
        check_guidance(guidance_scale, guidance_interval, self.config.null_class_trained)
        return set_timesteps(self.scheduler, num_inference_steps, self._execution_device)

    def _start(
        self, latents: Tensor | None, count: int, generator: Generators, device: torch.device
    ) -> Tensor:
        """The noisiest images, [count, C, H, W] float32: `latents`, or drawn, as large as the
        scheduler wants them."""
        config = self.transformer.config
        shape = (count, config.in_channels, config.sample_size, config.sample_size)
        if latents is None:
            latents = randn_tensor(shape, generator, device, torch.float32)
        check_latents(latents, shape)
        # init_noise_sigma is 1 except in schedulers that count in sigmas, such as Euler's
        return latents.to(device, torch.float32) * self.scheduler.init_noise_sigma

    def predict(
        self, x: Tensor, t: Tensor, labels: Tensor, guidance_scale: float, channels: int
    ) -> Tensor:
        """The model's output [B, C or 2C, H, W] float32 for x, the first `channels` guided.

        The other channels, such as the variance, are those of the conditional output.
        """
        scaled = self.scheduler.scale_model_input(x, t)
        if guidance_scale == 1:
            return self._model(scaled, t, labels)
        null = torch.full_like(labels, self.transformer.config.num_classes)
        both = self._model(torch.cat([scaled, scaled]), t, torch.cat([labels, null]))
        conditional, unconditional = both.chunk(2)
        start = unconditional[:, :channels]
        guided = start + guidance_scale * (conditional[:, :channels] - start)
        return torch.cat([guided, conditional[:, channels:]], dim=1)

    def _model(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        dtype = self.transformer.dtype
        return self.transformer(x.to(dtype), t.to(x.device), labels, return_dict=False)[0].float()

    def _decode(self, x: Tensor) -> Tensor:
        """Pixels from 0 to 1. Raises FloatingPointError if one is not finite."""
        if self.vae is not None:
            x = decode(self.vae, x)
        check_finite(x)
        return (x / 2 + 0.5).clamp(0, 1)

    def save_pretrained(self, save_directory: str | os.PathLike, **options: Any) -> None:
        """As in diffusers, with the file that tells diffusers where this class is."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _LOADER_NAME).write_text(_LOADER, encoding="utf-8")
        super().save_pretrained(save_directory, **options)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike, **options: Any
    ) -> DiTPipeline:
        """As in diffusers; trusts a folder whose only code was written by `save_pretrained`."""
        folder = Path(pretrained_model_name_or_path)
        if [p.relative_to(folder).as_posix() for p in folder.rglob("*.py")] == [_LOADER_NAME]:
            own = (folder / _LOADER_NAME).read_text(encoding="utf-8") == _LOADER
            options = {"trust_remote_code": own, **options}
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    def to_json_string(self) -> str:
        """The configuration, with the file of this class beside its name."""
        content = json.loads(super().to_json_string())
        content["_class_name"] = [Path(_LOADER_NAME).stem, type(self).__name__]
        return json.dumps(content, indent=2, sort_keys=True) + "\n"
