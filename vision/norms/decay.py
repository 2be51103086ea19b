"""Which parameters of a model take weight decay because their norm says so."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from vision.norms.base import Norm
from vision.norms.registry import registered_classes


def decayed_parameters(model: nn.Module) -> set[str]:
    """Full names of the norm parameters that their classes list in `decayed`.

    Names are those of `model.named_parameters()`, so a shared parameter has its first name.

    Raises:
        ValueError: a class lists a parameter that it does not have.
    """
    found: list[Tensor] = []
    for norm in _norms(model):
        parameters = dict(norm.named_parameters())
        for name in getattr(norm, "decayed", ()):
            if name in parameters:
                found.append(parameters[name])
            # None: switched off, as by affine=False
            elif getattr(norm, name.partition(".")[0], ...) is not None:
                raise ValueError(
                    f"{type(norm).__name__}.decayed names {name!r}; its parameters are "
                    f"{', '.join(parameters) or 'none'}"
                )
    return _names(model, found)


def norm_parameters(model: nn.Module) -> set[str]:
    """Full names of all parameters that belong to registered norms."""
    return _names(model, [p for norm in _norms(model) for p in norm.parameters()])


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    kinds: tuple[type[nn.Module], ...] = (Norm, *registered_classes())
    return (module for module in model.modules() if isinstance(module, kinds))


def _names(model: nn.Module, parameters: list[Tensor]) -> set[str]:
    wanted = {id(parameter) for parameter in parameters}
    return {name for name, p in model.named_parameters() if id(p) in wanted}
