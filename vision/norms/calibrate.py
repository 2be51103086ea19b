"""Fits new norms to the outputs of the norms that they replaced, layer by layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vision.norms.carry_over import replaced_norms, scale_of, shift_of
from vision.norms.least_squares import Sums
from vision.norms.recognize import is_channels_first
from vision.norms.tokens import TokenMoments

_NOT_REACHED = "not reached by the batches"
_NO_CANDIDATES = "this norm cannot be fitted"
_NO_BETTER = "no better fit found"


@dataclass(frozen=True)
class LayerFit:
    """One norm: its relative error, ‖new − old‖/‖old‖ over all outputs, before and after the fit.

    `kept` says why it stayed as it was; None if it was fitted.
    """

    name: str
    before: float
    after: float
    kept: str | None = None


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` did; prints as a table."""

    layers: tuple[LayerFit, ...]

    @property
    def summary(self) -> str:
        """One line: how many norms were fitted, the mean errors, and what stayed as it was."""
        reached = [layer for layer in self.layers if not math.isnan(layer.before)]
        before, after = (
            sum(getattr(layer, when) for layer in reached) / max(len(reached), 1)
            for when in ("before", "after")
        )
        kept = Counter(layer.kept for layer in self.layers if layer.kept is not None)
        text = f"{len(self.layers) - kept.total()} of {len(self.layers)} norms fitted"
        text += f", mean relative error {before:.3g} before and {after:.3g} after"
        return text + "".join(f"; {n} left as they were: {reason}" for reason, n in kept.items())

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        rows = [f"{'norm':<{width}}  {'before':>8}  {'after':>8}"]
        for layer in self.layers:
            row = f"{layer.name:<{width}}  {layer.before:8.4f}  {layer.after:8.4f}"
            rows.append(f"{row}  {layer.kept or ''}".rstrip())
        return "\n".join([*rows, self.summary])


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Any]) -> Calibration:
    """Fits the norms that `convert_norms` put in `model` to those that they replaced, in place.

    The model runs in eval mode with the old norms' outputs, so every layer gets the input that it
    had before the conversion. Per channel, scale and shift are the least-squares fit of the old
    output; what else a norm has is chosen from what its `candidates` proposes for these tokens. A
    layer is never worse after than before: otherwise it keeps what it had.

    Args:
        model: Converted by `convert_norms`; a copy of such a model will not do.
        batches: What the model takes: a tensor, a tuple of arguments or a dict of keyword
            arguments each. All are held in memory and run three times; of activations only sums
            are kept. The sums are in float64.

    Returns:
        The relative error of each layer before and after.

    Raises:
        ValueError: no batches, or the model has no norm whose predecessor is known.
    """
    layers = [_Layer(name, *pair) for name, pair in replaced_norms(model).items()]
    held = list(batches)
    if not layers:
        raise ValueError(
            f"convert_norms put no norm in this {type(model).__name__} (copies of a converted "
            "model do not count); convert it first"
        )
    if not held:
        raise ValueError("no batches to calibrate with; give at least one")
    with _evaluating(model, layers):
        for stage in (_Layer.observe, _Layer.accumulate, _Layer.check):
            with ExitStack() as hooks:
                for layer in layers:
                    hooks.enter_context(layer.standing_in(stage))
                for batch in held:
                    _call(model, batch)
            for layer in layers:
                layer.conclude(stage)
    return Calibration(tuple(layer.report() for layer in layers))


def _call(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, dict):
        model(**batch)
    else:
        model(*batch) if isinstance(batch, (tuple, list)) else model(batch)


@contextmanager
def _evaluating(model: nn.Module, layers: list[_Layer]) -> Iterator[None]:
    """Eval mode for the model and the old norms, which go to the new ones' device."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for layer in layers:
        device = next((t.device for t in layer.new.state_dict().values()), None)
        layer.old.to(device).eval()
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code would keep the hooks
            yield
    finally:
        for module, training in modes.items():
            module.training = training


class _Error:
    """Running relative error."""

    def __init__(self) -> None:
        self.squares, self.total = 0.0, 0.0

    def add(self, y: Tensor, expected: Tensor) -> None:
        self.squares += float((y.double() - expected.double()).square().sum())
        self.total += float(expected.double().square().sum())

    @property
    def value(self) -> float:
        """NaN if nothing was added."""
        return math.sqrt(self.squares / self.total) if self.total > 0 else math.nan


class _Layer:
    """A new norm and the old one, and the sums over all tokens that the fit needs."""

    def __init__(self, name: str, new: nn.Module, old: nn.Module) -> None:
        self.name, self.new, self.old = name, new, old
        self.start = {key: value.clone() for key, value in new.state_dict().items()}
        self.count = 0
        self.first: Any = 0.0  # sum of x, and of x², per channel
        self.second: Any = 0.0
        self.logs, self.sized = 0.0, 0  # sum of log RMS, over tokens that are not 0
        self.candidates: list[dict[str, Any]] = []
        self.sums: list[Sums] = []
        self.before, self.after = _Error(), _Error()
        self.kept: str | None = None

    @contextmanager
    def standing_in(self, stage: Any) -> Iterator[None]:
        """Within it the norm's output is the old one's, and `stage` sees input and outputs."""

        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            y = self.old(args[0])
            stage(self, args[0], y, output)
            return y

        handle = self.new.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def observe(self, x: Tensor, y: Tensor, output: Tensor) -> None:
        """First pass: what the tokens are like, and the error as it is."""
        rows = self._rows(x)
        self.count += len(rows)
        self.first = self.first + rows.sum(0)
        self.second = self.second + rows.square().sum(0)
        sizes = rows.square().mean(1).sqrt()
        self.logs += float(sizes[sizes > 0].log().sum())
        self.sized += int((sizes > 0).sum())
        self.before.add(output, y)

    def accumulate(self, x: Tensor, y: Tensor, output: Tensor) -> None:
        """Second pass: the sums of each candidate."""
        for candidate, sums in zip(self.candidates, self.sums, strict=True):
            self._set(candidate)
            rest, core = self._parts(x)
            sums.add(core, self._rows(y) - rest)
        self._set({})

    def check(self, x: Tensor, y: Tensor, output: Tensor) -> None:
        """Third pass: the true error of the fit."""
        self.after.add(output, y)

    def conclude(self, stage: Any) -> None:
        """What follows from a pass."""
        if stage is _Layer.observe and self.count > 0:
            rms = math.exp(self.logs / self.sized) if self.sized else 0.0
            moments = TokenMoments(self.first / self.count, self.second / self.count, rms)
            propose = getattr(self.new, "candidates", None)
            self.candidates = [{}] if propose is None else propose(moments)
            self.sums = [Sums() for _ in self.candidates]
        elif stage is _Layer.accumulate and self.candidates:
            self._take_best()
        elif stage is _Layer.check:
            if self.count == 0:
                self.kept = _NOT_REACHED
            elif not self.candidates:
                self.kept = _NO_CANDIDATES
            elif not self.after.value < self.before.value:
                self._set({})
                self.after, self.kept = self.before, _NO_BETTER

    def report(self) -> LayerFit:
        return LayerFit(self.name, self.before.value, self.after.value, self.kept)

    def _take_best(self) -> None:
        scale, shift = scale_of(self.new), shift_of(self.new)
        fits = [sums.solve(scale, shift) for sums in self.sums]
        best = min(range(len(fits)), key=lambda i: fits[i].error)
        self._set(self.candidates[best])
        if scale is not None:
            scale.copy_(fits[best].scale)
        if shift is not None:
            shift.copy_(fits[best].shift)

    def _set(self, values: dict[str, Any]) -> None:
        """The norm as it was given, but for these values."""
        self.new.load_state_dict(self.start)
        for name, value in values.items():
            target: Tensor = getattr(self.new, name)
            target.copy_(torch.as_tensor(value))

    def _parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output without scale and shift, and what the scale is multiplied with: rows."""
        scale, shift = scale_of(self.new), shift_of(self.new)
        if shift is not None:
            shift.zero_()
        if scale is None:
            core = self._rows(self.new.forward(x))
            return torch.zeros_like(core), core
        scale.zero_()
        rest = self._rows(self.new.forward(x))
        scale.fill_(1.0)
        return rest, self._rows(self.new.forward(x)) - rest

    def _rows(self, x: Tensor) -> Tensor:
        """Tokens `[N, D]`, float64."""
        x = x.movedim(1, -1) if is_channels_first(self.new) else x
        return x.flatten(0, -2).double() if x.ndim > 1 else x.unsqueeze(0).double()
