"""What all tasks share: optimizer, averaged weights, logging, stop at divergence, checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, SumMetric

from vision.config import Config
from vision.config.schema import ModelConfig
from vision.datasets.dataset import Batch
from vision.datasets.draws import RandomDraws
from vision.datasets.sampler import training_length
from vision.environment import first_found
from vision.norms import Conversion, Norm
from vision.tasks.finite import nonfinite_module, nonfinite_tensor
from vision.tasks.inputs import draws_of
from vision.tasks.optimizer import create_optimizer, create_schedule
from vision.tasks.sharding import shard, whole_weights


class VisionTask(pl.LightningModule):
    """Trains `model`, and keeps an exponential moving average of its weights if `ema.decay` is set.

    A task defines its loss (`compute_loss`), how one batch is evaluated (`evaluate_batch`), and
    `metrics`: for each model of `evaluated_models` a module whose `compute` returns a dict and
    whose `reset` clears it. Logged are `train/loss` (mean over the epoch), `train/loss_step`,
    `train/lr` and `{val,test}/METRIC`.
    """

    monitor: ClassVar[tuple[str, str]]  # metric that best.ckpt is chosen by; "max" or "min"
    shown: ClassVar[tuple[str, ...]]  # metrics in the line printed after each epoch
    curves: ClassVar[dict[str, str]]  # plots in curves.png: end of a metric's name -> axis label
    measures: ClassVar[tuple[str, ...]]  # what `metrics` compute of a model
    metrics: nn.ModuleList

    # keys of the configuration that do nothing here
    unused: ClassVar[tuple[str, ...]] = ("evaluation.extractor", "evaluation.reference")

    def __init__(self, config: Config, class_names: list[str], steps_per_epoch: int) -> None:
        super().__init__()
        self.config = config
        # and which norms were swapped, to be printed
        self.model, self.conversion = self.create_model(config, len(class_names))
        # found once: they are told of every step
        self._norms = [module for module in self.model.modules() if isinstance(module, Norm)]
        self.class_names = class_names
        self.steps_per_epoch = steps_per_epoch
        self.steps, self.epochs = training_length(config.trainer, steps_per_epoch)
        self.ema: ModelEmaV3 | None = None
        if config.ema.decay is not None:
            self.ema = ModelEmaV3(
                self.model, decay=config.ema.decay, use_warmup=config.ema.warmup
            ).requires_grad_(False)
        if config.trainer.compile:
            self.model.compile()
        self.train_loss = MeanMetric(nan_strategy="disable")  # a NaN must show in the mean
        # in the checkpoint, so that an epoch resumed halfway logs the mean over all of it
        self.train_loss.persistent(True)
        self.skipped = SumMetric(nan_strategy="disable")  # looking for a NaN waits for the device
        self.draws: RandomDraws | None = None  # made for each image by the loader's workers
        self._evaluating = ExitStack()  # the weights are whole while it is open

    @classmethod
    def create_model(cls, config: Config, num_classes: int) -> tuple[nn.Module, Conversion]:
        """What is trained, and which of its norms were swapped; on the meta device it is checked.

        Raises ValueError, naming the key, for a model that cannot be built.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, config: Config) -> None:
        """Raise ValueError, naming the key, for settings that this task has no use for."""
        for key in cls.unused:
            given, idle = (functools.reduce(getattr, key.split("."), c) for c in (config, Config()))
            if given != idle:
                raise ValueError(
                    f"{key} = {given!r}: task {config.task} has no use for it; set it to "
                    f"{'null' if idle is None else str(idle).lower()}"
                )
        model = config.model
        started = model.pretrained or model.init_from is not None
        if not started and model.init_from_norms != ModelConfig().init_from_norms:
            raise ValueError(
                f"model.init_from_norms = {model.init_from_norms}: of no weights; give "
                "model.init_from, or leave it out"
            )

    @classmethod
    def metric_names(cls, config: Config) -> list[str]:
        """The metrics of a split that a run of `config` will have: `top1`, `ema_top1`, ..."""
        prefixes = ["", *(["ema_"] if config.ema.decay is not None else [])]
        return [f"{prefix}{name}" for prefix in prefixes for name in cls.measures]

    def compute_loss(self, batch: Batch) -> Tensor:
        """Scalar loss of one training batch; `StepSeeding` has seeded the random numbers."""
        raise NotImplementedError

    def evaluate_batch(self, batch: Batch) -> None:
        """Update `metrics` with one batch (never empty) of the validation or test split."""
        raise NotImplementedError

    def model_inputs(self, batch: Batch) -> tuple[Any, ...]:
        """What `model` is called with when one batch is evaluated."""
        return (batch.images,)

    def draws_of(self, batch: Batch, training: bool) -> Sequence[Tensor]:
        """`draws` for the images of a batch, on their device, each [B, ...]."""
        assert self.draws is not None, "asked only by tasks that have them"
        return draws_of(batch, self.draws, self.current_epoch if training else None)

    def evaluated_models(self) -> dict[str, nn.Module]:
        """The trained model and, if there is one, its average, by the prefix of their metrics."""
        return {"": self.model, **({} if self.ema is None else {"ema_": self.ema.module})}

    def compute_metrics(self) -> dict[str, Tensor]:
        """Metrics over all batches since the last call, on all ranks."""
        values: dict[str, Tensor] = {}
        for prefix, metrics in zip(self.evaluated_models(), self.metrics, strict=False):
            computed: dict[str, Tensor] = metrics.compute()  # type: ignore[operator]
            values |= {f"{prefix}{name}": value for name, value in computed.items()}
            metrics.reset()  # type: ignore[operator]
        return values

    def describe_length(self) -> str:
        """How many epochs the steps of the training are, and whether the warm-up ends in it."""
        rest = self.steps - (self.epochs - 1) * self.steps_per_epoch
        cut = f", the last cut to {rest:,}" if rest < self.steps_per_epoch else ""
        text = f"{self.steps:,} steps: {self.epochs} epochs of {self.steps_per_epoch:,}{cut}"
        warmup = self.config.optim.warmup_epochs * self.steps_per_epoch
        if warmup < self.steps:
            return text
        return f"{text}; all of it warm-up ({self.config.optim.warmup_epochs:g} epochs)"

    def configure_model(self) -> None:
        """Shard the weights and their average over the ranks, if the strategy asks for it."""
        if self.device_mesh is not None:
            mixed = self.trainer.precision == "bf16-mixed"
            shard(
                self.device_mesh["data_parallel"],
                self.model,
                self.ema and self.ema.module,
                compute_dtype=torch.bfloat16 if mixed else None,
            )
            if self.ema is not None:
                # buffers are not sharded and cannot be averaged in one call with DTensors
                self.ema.foreach = False

    def whole_weights(self) -> AbstractContextManager[None]:
        """Within it, each rank can run the model alone, whatever the strategy. All must enter."""
        return whole_weights(self.model, self.ema and self.ema.module)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tell the norms how far the run is; a resumed run tells them the same."""
        progress = self.global_step / self.steps
        for norm in self._norms:
            norm.follow(progress)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch; in a watched step logged, and the run stops if it is not finite.

        Nothing in the other steps waits for the device.
        """
        loss = self.compute_loss(batch)
        count = len(batch.images)
        # weighted by images: a run may resume with batches of another size
        self.train_loss.update(loss.detach().expand(count))
        self.skipped.update(batch.skipped)
        if self._watched():
            self.log("train/loss_step", loss.detach(), sync_dist=True, batch_size=count)
            groups = self.trainer.optimizers[0].param_groups
            self.log("train/lr", max(group["lr"] for group in groups), batch_size=count)
            self._check_finite(loss.item(), batch)
        if self.trainer.is_last_batch:
            self._log_epoch(count)
        return loss

    def _watched(self) -> bool:
        """Whether this step is the first, one that Lightning logs, or the last of its epoch."""
        step, every = self.global_step, self.config.trainer.log_every_n_steps
        return step == 0 or (step + 1) % every == 0 or self.trainer.is_last_batch

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop if a gradient is not finite, before it reaches the weights."""
        scaled = self.trainer.precision == "16-mixed"  # its scaler skips such steps
        if self._watched() and not scaled:
            name = nonfinite_tensor((n, p.grad) for n, p in self.model.named_parameters())
            if name is not None:
                raise self._diverged(f"the gradient of {name} is not finite")

    def _check_finite(self, loss: float, batch: Batch) -> None:
        """Stop all ranks if one of them has a loss that is not finite."""
        if self.trainer.strategy.reduce_boolean_decision(math.isfinite(loss), all=True):
            return
        # on every rank, for the sake of those that wait for its weights or norms
        layer = nonfinite_module(self.model, lambda: self.compute_loss(batch))
        finding = f"the loss is {loss}, first seen in {layer or 'the loss'}"
        raise self._diverged(str(first_found(None if math.isfinite(loss) else finding)))

    def _diverged(self, what: str) -> FloatingPointError:
        rate = max(group["lr"] for group in self.trainer.optimizers[0].param_groups)
        return FloatingPointError(
            f"{what}, at step {self.global_step}: lower optim.lr (now {rate:.3g}), set "
            "optim.clip_grad, or use more warm-up; last.ckpt is the last good one"
        )

    def _log_epoch(self, batch_size: int) -> None:
        """Log the mean loss of the epoch, and how many unreadable images were skipped."""
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": batch_size}
        self.log("train/loss", self.train_loss.compute(), **options)
        self.train_loss.reset()
        if self.config.data.on_corrupt == "skip":
            self.log("data/skipped", self.skipped.compute(), **options)
            self.skipped.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate one batch."""
        self.skipped.update(batch.skipped)
        if len(batch.images) > 0:
            self.evaluate_batch(batch)

    def on_validation_start(self) -> None:
        """Ranks run different numbers of validation batches, so gather the weights first."""
        self._evaluating.enter_context(self.whole_weights())

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over the split."""
        stage = "test" if self.trainer.testing else "val"
        self.log_dict({f"{stage}/{name}": value for name, value in self.compute_metrics().items()})

    def on_validation_end(self) -> None:
        """Shard the weights again."""
        self._evaluating.close()

    test_step = validation_step
    on_test_start = on_validation_start
    on_test_epoch_end = on_validation_epoch_end
    on_test_end = on_validation_end

    def configure_optimizers(self) -> Any:
        """timm's optimizer, and its schedule, which advances with every update."""
        config = self.config
        batch, scales_loss = config.trainer.batch_size_total, self.trainer.precision == "16-mixed"
        optimizer = create_optimizer(self.model, config.optim, batch, fused=not scales_loss)
        schedule = create_schedule(optimizer, config.optim, self.steps, self.steps_per_epoch)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, *_: Any, **__: Any
    ) -> None:
        """Clip by norm; Lightning's own refuses fused optimizers in bf16-mixed, as in 16-mixed."""
        if gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """timm's schedules take the number of updates."""
        scheduler.step_update(self.global_step)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the average after the weights, before any checkpoint is written."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.model, step=self.global_step + 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record what the checkpoint is of, and the running sums over all ranks."""
        for name, metric in self._running():
            with metric.sync_context():
                checkpoint["state_dict"].update(metric.state_dict(prefix=f"{name}."))
        checkpoint["vision"] = {
            "task": self.config.task,
            "config": dataclasses.asdict(self.config),
            "class_names": self.class_names,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the running sums to rank 0 alone, so that they are counted once."""
        state = checkpoint["state_dict"]
        for name, _ in self._running():
            for key in [key for key in state if key.startswith(f"{name}.")]:
                if not self.trainer.is_global_zero:
                    state[key] = torch.zeros_like(state[key])

    def _running(self) -> list[tuple[str, Metric]]:
        """Metrics that checkpoints keep, so that an epoch can be resumed halfway."""
        metrics = [(n, m) for n, m in self.named_modules() if isinstance(m, Metric)]
        return [(name, metric) for name, metric in metrics if metric.state_dict()]
