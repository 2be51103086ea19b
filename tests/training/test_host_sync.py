"""Between two logged steps nothing waits for the device."""

import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

TASKS = {
    "classify": ["mix.mixup=0.8", "mix.cutmix=1", "optim.clip_grad=1"],
    "mae": [],
    "dit": ["norm.options.coefficient_dropout=0.1"],
}
# each gives the host numbers of a tensor, or a shape that depends on them
WAITING = {
    Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero, Tensor.unique,
    Tensor.equal, Tensor.allclose, Tensor.masked_select, Tensor.__bool__, Tensor.__int__,
    Tensor.__float__, Tensor.__index__, Tensor.__contains__, torch.nonzero, torch.unique,
    torch.equal, torch.allclose, torch.masked_select, torch.isclose, torch.bincount,
}  # fmt: skip
# makes a tensor of the host's numbers: a copy from memory that is not pinned
COPYING = {torch.tensor, torch.as_tensor}
# what stays on the CPU whatever the device: the loader, the count of steps of an optimizer
HOST = ("vision/datasets/", "torch/optim/", "torch/utils/data/", "callbacks/checkpoint.py")


class Watch(TorchFunctionMode):
    """Counts calls that would wait for a device, by the line of ours or Lightning's behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func is Tensor.__getitem__ and getattr(args[1], "dtype", None) == torch.bool
        if func in WAITING or func in COPYING or by_mask:
            frames = [frame.filename for frame in traceback.extract_stack()[:-1]]
            if not any(part in file for file in frames for part in HOST):
                frame = traceback.extract_stack()[-2]
                self.found[f"{func.__name__} {frame.filename}:{frame.lineno}"] += 1
        return func(*args, **(kwargs or {}))


class CountOnCPU(pl.Callback):
    """What each training step calls, by its number."""

    def __init__(self) -> None:
        self.steps: dict[int, Counter[str]] = {}
        self._watch: Watch | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        self._begin()

    def _begin(self) -> None:
        self._watch = Watch()
        self._watch.__enter__()

    def _end(self, step: int) -> None:
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            self.steps[step] = self._watch.found
            self._watch = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """A step counts from here to the next one: with its callbacks and the next batch."""
        if batch_idx > 0:
            self._end(batch_idx - 1)
            self._begin()

    def on_train_epoch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        self._end(trainer.global_step - 1)


@pytest.mark.parametrize("task", TASKS)
def test_steps_between_logged_ones_wait_for_nothing(
    task: str, fit: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # the bar of a terminal
    count = CountOnCPU()
    overrides = [*TASKS[task], "trainer.log_every_n_steps=4", "trainer.progress_bar=true"]
    more = ["trainer.checkpoint_every_n_minutes=60", "trainer.accelerator=cpu"]
    fit(task, *overrides, *more, steps=8, callbacks=[count])
    assert sorted(count.steps) == list(range(8))
    assert count.steps[3] and count.steps[7]  # it would see them
    for step in (1, 2, 4, 5, 6):  # the first step is watched too
        assert not count.steps[step], (step, count.steps[step])


class CountOnGPU(pl.Callback):
    """Steps in which CUDA says that the host waited."""

    def __init__(self) -> None:
        self.steps: dict[int, list[str]] = {}
        self._caught: Any = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self._caught = warnings.catch_warnings(record=True)
        self.steps[batch_idx] = self._caught.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self._caught.__exit__(None, None, None)


@pytest.mark.gpu
@pytest.mark.parametrize("task", TASKS)
def test_the_same_on_a_gpu(task: str, fit: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # the bar of a terminal
    count = CountOnGPU()
    overrides = [*TASKS[task], "trainer.log_every_n_steps=8", "trainer.progress_bar=true"]
    fit(task, *overrides, "trainer.accelerator=gpu", steps=16, callbacks=[count])
    waited = {
        step: [str(w.message) for w in found if "synchronizing" in str(w.message)]
        for step, found in count.steps.items()
    }
    assert waited[7]  # it would see them
    assert not any(waited[step] for step in (*range(2, 7), *range(8, 15))), waited
