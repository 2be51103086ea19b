"""The block that a norm stands in: what depends on it is told to the norm when it is placed."""

from __future__ import annotations

from torch import nn


def drop_path_rate_at(model: nn.Module, name: str) -> float:
    """The drop-path rate of the innermost block around the module `name`; 0 where there is none.

    A block is a module with children `drop_path`, `drop_path1`, ..., as timm names them; at a rate
    of 0 they are identities. If its rates differ it is the largest.
    """
    while name:
        name = name.rpartition(".")[0]
        children = model.get_submodule(name).named_children()
        paths = [path for child, path in children if child.startswith("drop_path")]
        if paths:
            return max(float(getattr(path, "drop_prob", None) or 0.0) for path in paths)
    return 0.0
