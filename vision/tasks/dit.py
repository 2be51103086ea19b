"""Training of a class-conditional diffusion transformer as a LightningModule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection, SumMetric

from vision.config import Config
from vision.datasets.dataset import Batch
from vision.diffusion.load_pipeline import make_pipeline
from vision.diffusion.objective import DiffusionObjective, Terms, drop_labels
from vision.diffusion.pipeline import DiTPipeline
from vision.models.dit import DiT, create_dit, differs_by_affine
from vision.models.dit_sizes import dit_size
from vision.norms.base import remarks
from vision.norms.conversion import Conversion
from vision.norms.registry import get_norm
from vision.registry import TASKS
from vision.seeding import generator_for
from vision.tasks.base import VisionTask
from vision.tasks.inputs import as_input

_QUARTILES = 4


@TASKS.register("dit")
class DiTTask(VisionTask):
    """Trains a DiT on noised images (or latents) and their classes.

    Metrics are `loss`, `mse` and `vb`, and the same with `ema_` of the averaged weights, on noise
    and timesteps that are the same at every validation. `train/mse_q1` to `_q4` are the squared
    errors over the epoch in each quarter of the timesteps, least noise first.
    """

    monitor: ClassVar = ("val/loss", "min")
    shown: ClassVar = ("train/loss", "val/loss", "val/ema_loss")
    curves: ClassVar = {"loss": "loss (squared error + bound)"}
    measures: ClassVar = Terms._fields

    unused: ClassVar = (
        "mix.mixup",
        "mix.cutmix",
        "mix.label_smoothing",
        "model.pretrained",
        "model.norm_placement",
        "model.residual",
        "model.qk_norm",
        "model.mlp_norm",
    )

    def __init__(self, config: Config, class_names: list[str], steps_per_epoch: int) -> None:
        super().__init__(config, class_names, steps_per_epoch)
        if config.dit.gradient_checkpointing:
            self.model.enable_gradient_checkpointing()  # type: ignore[operator]
        self.objective = DiffusionObjective(config.dit.prediction, config.dit.min_snr_gamma)
        # in checkpoints, as the mean loss, for an epoch that is resumed halfway (sums, because
        # MeanMetric ignores weights if its NaN check is off)
        self.quartile_errors = _sums(_QUARTILES)
        self.quartile_counts = _sums(_QUARTILES)
        self.metrics = nn.ModuleList(_term_means() for _ in self.evaluated_models())
        shape = (config.data.in_chans, config.data.img_size, config.data.img_size)
        self.draws = DiffusionDraws(config.seed, shape, self.objective.num_timesteps)
        for total in (*self.quartile_errors, *self.quartile_counts):
            total.persistent(True)

    @classmethod
    def create_model(cls, config: Config, num_classes: int) -> tuple[nn.Module, Conversion]:
        """The DiT of `config`."""
        model = create_dit(config, num_classes)
        return model, _norms(model)

    @classmethod
    def check(cls, config: Config) -> None:
        """As every task; pixels go from -1 to 1, only latents are decoded by a VAE, and running
        statistics would see each batch twice where activations are computed again."""
        super().check(config)
        if config.dit.gradient_checkpointing and getattr(
            get_norm(config.norm.name), "running", False
        ):
            raise ValueError(
                f"dit.gradient_checkpointing = true: norm {config.norm.name!r} keeps running "
                "statistics, which would take each batch twice; set it to false"
            )
        _check_guidance(config)
        data, evaluation = config.data, config.evaluation
        if evaluation.reference is not None and evaluation.extractor is None:
            raise ValueError(
                f"evaluation.reference = {evaluation.reference}: no metrics are computed; set "
                "evaluation.extractor, or this to null"
            )
        for key in ("mean", "std"):
            values = getattr(data, key)
            if data.name != "latents" and any(value != 0.5 for value in values):
                raise ValueError(
                    f"data.{key} = {values}: a DiT is trained on pixels from -1 to 1; set it to "
                    f"{[0.5] * data.in_chans}"
                )
        if config.dit.vae is not None and data.name != "latents":
            raise ValueError(
                f"dit.vae = {config.dit.vae!r}: decodes latents, and data.name is {data.name}; "
                "write latents with tools/encode_latents.py and set data.name=latents, or set "
                "dit.vae to null"
            )

    def on_fit_start(self) -> None:
        """Say in what the model is smaller than the published one of its name."""
        published = dit_size(self.config.model.name)
        given = {key: getattr(self.config.model, key) for key in published}
        changed = {k: v for k, v in given.items() if v not in (None, published[k])}
        narrowed = [f"{k} {v} (of {published[k]})" for k, v in changed.items()]
        if narrowed:
            self.print(f"        narrowed: {', '.join(narrowed)}")
            self.print("        configs/recipes/imagenet_dit.yaml restores the published size")

    def compute_loss(self, batch: Batch) -> Tensor:
        x0 = batch.images
        noise, t, uniform = self.draws_of(batch, training=True)
        labels = drop_labels(
            batch.targets, len(self.class_names), self.config.dit.label_dropout, uniform
        )
        terms = self._terms(self.model, x0, noise, t, labels)
        quarter = t * _QUARTILES // self.objective.num_timesteps
        for i in range(_QUARTILES):
            inside = (quarter == i).float()
            self.quartile_errors[i].update(terms.mse.detach() * inside)  # type: ignore[operator]
            self.quartile_counts[i].update(inside)  # type: ignore[operator]
        return terms.loss.mean()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As in every task; at the end of an epoch also log the error by quarter of timesteps."""
        loss = super().training_step(batch, batch_idx)
        if self.trainer.is_last_batch:
            pairs = zip(self.quartile_errors, self.quartile_counts, strict=True)
            for i, (error, count) in enumerate(pairs):
                mean = error.compute() / count.compute()  # type: ignore[operator]
                name = f"train/mse_q{i + 1}"
                self.log(name, mean, on_step=False, on_epoch=True, batch_size=len(batch.images))
                error.reset()  # type: ignore[operator]
                count.reset()  # type: ignore[operator]
        return loss

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a run that was trained with affine norms while they were the default."""
        super().on_load_checkpoint(checkpoint)
        names = {n.removeprefix("model.") for n in checkpoint["state_dict"] if n[:6] == "model."}
        if differs_by_affine(cast(DiT, self.model), names):
            raise ValueError(
                f"norm.options = {self.config.norm.options}: the run has affine norms, once the "
                "default; add norm.options.affine=true to its config.yaml and resume with that file"
            )

    def model_inputs(self, batch: Batch) -> tuple[Any, ...]:
        noise, t, _ = self.draws_of(batch, training=False)
        return self.objective.add_noise(batch.images, noise, t), t, batch.targets

    def evaluate_batch(self, batch: Batch) -> None:
        noise, t, _ = self.draws_of(batch, training=False)
        for model, means in zip(self.evaluated_models().values(), self.metrics, strict=True):
            terms = self._terms(model, batch.images, noise, t, batch.targets)
            for name, values in terms._asdict().items():
                means.get_submodule(name).update(values)  # type: ignore[operator]

    def make_pipeline(self, ema: bool, sampler: str = "ddpm") -> DiTPipeline:
        """A pipeline of the current weights, or, with `ema`, of their average if there is one.

        It shares the model with training, mode included: switch it to eval before sampling.
        """
        model = self.ema.module if ema and self.ema is not None else self.model
        pipeline = make_pipeline(model, self.config, self.class_names, sampler)
        if pipeline.vae is not None:
            pipeline.vae.to(self.device)
        return pipeline

    def _terms(
        self, model: nn.Module, x0: Tensor, noise: Tensor, t: Tensor, labels: Tensor
    ) -> Terms:
        xt = self.objective.add_noise(x0, noise, t)
        output = model(as_input(xt, model), t, labels, return_dict=False)[0]
        return self.objective.terms(output, x0, xt, noise, t)


@dataclass(frozen=True)
class DiffusionDraws:
    """Noise of an image, float32 `shape`; its timestep, int64 []; and a number from 0 to 1,
    float32 [], which decides whether its label is dropped."""

    seed: int
    shape: tuple[int, ...]
    num_timesteps: int

    def __call__(self, index: int, epoch: int | None) -> tuple[Tensor, Tensor, Tensor]:
        keys = ("judge",) if epoch is None else ("train", epoch)
        generator = generator_for(self.seed, *keys, index)
        noise = torch.randn(self.shape, generator=generator)
        t = torch.randint(self.num_timesteps, (), generator=generator)
        return noise, t, torch.rand((), generator=generator)


def _check_guidance(config: Config) -> None:
    """Raise ValueError where samples are to be guided by a null class that is not trained."""
    scales = {
        "dit.sample_guidance": (config.dit.sample_every_n_steps, config.dit.sample_guidance),
        "evaluation.guidance_scale": (
            config.evaluation.extractor,
            config.evaluation.guidance_scale,
        ),
    }
    for key, (sampled, scale) in scales.items():
        if config.dit.label_dropout == 0 and sampled is not None and scale != 1:
            raise ValueError(
                f"{key} = {scale}: dit.label_dropout = 0 leaves the null class untrained, which "
                "guides; set it to 1, or dit.label_dropout to 0.1"
            )


def _term_means() -> MetricCollection:
    # updated one by one, which would mislead the search for groups of equal state
    means = {name: MeanMetric(nan_strategy="disable") for name in Terms._fields}
    return MetricCollection(means, compute_groups=False)  # type: ignore[arg-type]


def _sums(count: int) -> nn.ModuleList:
    return nn.ModuleList(SumMetric(nan_strategy="disable") for _ in range(count))


def _norms(model: DiT) -> Conversion:
    """The norms that replace the LayerNorms of the published model."""
    names = [name for name, _ in model.named_modules() if name.split(".")[-1].startswith("norm")]
    names = [name for name in names if not name.startswith("norm") and ".attn." not in name]
    norms = [(name, model.get_submodule(name)) for name in names]
    norms = [(name, norm) for name, norm in norms if not isinstance(norm, nn.Identity)]
    swapped = tuple((name, "LayerNorm", type(norm).__name__) for name, norm in norms)
    notes = remarks(norm for _, norm in norms)
    if model.config.norm_options.get("affine") is False:
        notes = ("affine=false, as published", *notes)
    return Conversion(swapped, (), notes)
