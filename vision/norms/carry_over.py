"""What a new norm takes over from the one that it replaces, and which norms were replaced."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# new norm -> the norm whose place it took, for `calibrate`
_replaced: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def remember(new: nn.Module, old: nn.Module) -> None:
    """Note that `new` stands where `old` stood, and computes what it computed, more or less."""
    _replaced[new] = old


def forget(new: nn.Module) -> None:
    """`new` has weights of its own now: what it replaced is no model for it."""
    _replaced.pop(new, None)


def replaced_norms(model: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Name, new norm and old norm of all places in the model whose old norm is known."""
    return {n: (m, _replaced[m]) for n, m in model.named_modules() if m in _replaced}


def restore_norms(model: nn.Module) -> None:
    """Put back the norms that were replaced, where they are known."""
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in _replaced:
            parent_name, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent_name), attribute, _replaced[module])


def scale_of(norm: nn.Module, branch: str = "") -> Tensor | None:
    """The parameter that its output is multiplied by: `weight`, or as the class says."""
    return _parameter(norm, branch + getattr(norm, "scale_name", "weight"))


def shift_of(norm: nn.Module, branch: str = "") -> Tensor | None:
    """The parameter that is added to its output: `bias`, or as the class says."""
    return _parameter(norm, branch + getattr(norm, "shift_name", "bias"))


def _parameter(norm: nn.Module, name: str) -> Tensor | None:
    value = getattr(norm, name, None)
    return value if isinstance(value, nn.Parameter) else None


@torch.no_grad()
def take_over(old: nn.Module, new: nn.Module) -> tuple[str, ...]:
    """Multiply the new norm's scale by the old one's, and add the old shift to its shift.

    So a norm whose scale starts at 1 has the old one's, and an untrained norm (scale 1, shift 0)
    changes nothing, however the new one starts. So do the scales and shifts of its other branches.

    Returns:
        Which of "scale" and "shift" the new norm has no place for, although the old one's says
        something: it is not 1, or not 0, in all channels.
    """
    lost = []
    for role, of, idle in (("scale", scale_of, 1.0), ("shift", shift_of, 0.0)):
        learned = of(old)
        if learned is None or learned.is_meta:
            continue
        found = [of(new, branch) for branch in ("", *getattr(new, "branches", ()))]
        fitting = [own for own in found if own is not None and own.shape == learned.shape]
        for own in fitting:
            values = learned.to(own)
            own.copy_(own * values if role == "scale" else own + values)
        if not fitting and (learned != idle).any():
            lost.append(role)
    return tuple(lost)
