"""Every precision trains every task, or is refused in one line; small steps are never lost."""

from collections.abc import Callable

import pytest
import pytorch_lightning as pl
import torch
from torchmetrics import Metric

from vision.config.schema import TrainerConfig
from vision.training.precision import check_precision

DTYPES = {
    "32-true": torch.float32, "bf16-mixed": torch.float32, "bf16-true": torch.bfloat16,
    "64-true": torch.float64,
}  # fmt: skip
TASKS = ["classify", "mae", "dit"]


@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("precision", DTYPES)
def test_two_steps_and_a_validation(precision: str, task_name: str, fit: Callable) -> None:
    trainer, task = fit(task_name, f"trainer.precision={precision}", "trainer.accelerator=cpu")
    assert trainer.global_step == 2
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())
    assert {p.dtype for p in task.model.parameters()} == {DTYPES[precision]}


@pytest.mark.parametrize("precision", DTYPES)
def test_gradients_are_clipped_for_a_fused_optimizer(precision: str, fit: Callable) -> None:
    class Norms(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
            found.append(norm_of(pl_module))

        def on_before_zero_grad(self, trainer, pl_module, optimizer) -> None:
            clipped.append(norm_of(pl_module))  # those of the step before

    def norm_of(task: pl.LightningModule) -> float:
        gradients = [p.grad for p in task.model.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0

    found: list[float] = []
    clipped: list[float] = []
    overrides = [f"trainer.precision={precision}", "trainer.accelerator=cpu", "optim.clip_grad=0.1"]
    _, task = fit("classify", *overrides, callbacks=[Norms()])
    assert all(group["fused"] for group in task.trainer.optimizers[0].param_groups)
    assert min(found) > 0.1
    assert max(clipped) == pytest.approx(0.1, rel=0.02)


@pytest.mark.gpu
@pytest.mark.parametrize("task_name", TASKS)
@pytest.mark.parametrize("precision", [*DTYPES, "16-mixed"])
def test_the_same_on_a_gpu(precision: str, task_name: str, fit: Callable) -> None:
    clip = "optim.clip_grad=1"
    trainer, _ = fit(task_name, f"trainer.precision={precision}", "trainer.accelerator=gpu", clip)
    assert trainer.global_step == 2
    assert all(torch.isfinite(value) for value in trainer.callback_metrics.values())


@pytest.mark.parametrize("task_name", TASKS)
def test_what_accumulates_small_steps_stays_in_float32(task_name: str, fit: Callable) -> None:
    overrides = ["trainer.precision=bf16-true", "trainer.accelerator=cpu", "ema.decay=0.999"]
    _, task = fit(task_name, *overrides, "ema.warmup=false", steps=5)
    averages = dict(task.ema.module.named_parameters())
    assert {p.dtype for p in averages.values()} == {torch.float32}
    # an average in bfloat16 would stay where it is: a step moves it by 0.1 % of a small difference
    moved = total = 0
    for name, weight in task.model.named_parameters():
        start = averages[name].bfloat16().float()  # what rounding would leave of it
        moved += int((averages[name] != start).sum())
        total += int(weight.requires_grad) * weight.numel()
    assert moved > 0.5 * total
    metrics = [module for module in task.modules() if isinstance(module, Metric)]
    assert metrics
    for metric in metrics:
        for state in metric._defaults:
            value = getattr(metric, state)
            assert not value.is_floating_point() or value.dtype == torch.float32, (metric, state)


def test_float16_on_a_cpu_is_refused_before_the_run() -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision = '16-mixed': .* use bf16-mixed"):
        check_precision(TrainerConfig(accelerator="cpu", precision="16-mixed"))
    check_precision(TrainerConfig(accelerator="cpu", precision="bf16-mixed"))
