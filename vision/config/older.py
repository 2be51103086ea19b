"""Configurations that older runs recorded, in today's words. Imports no torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from vision.config.read import Source

# sections and keys of every record; what a person writes has fewer
_RECORDED = {"task", "name", "seed", "norm", "model", "data", "mix", "optim", "ema", "trainer"}


def todays(source: Source) -> Source:
    """`source` with today's names and values for what records of older runs say otherwise."""
    tree = source.tree
    model = tree.get("model")
    if isinstance(model, dict) and isinstance(model.get("init_from_strict"), bool):
        renamed = {"init_from_norms": "refuse" if model["init_from_strict"] else "fresh"}
        model = renamed | {k: v for k, v in model.items() if k != "init_from_strict"}
        tree = {**tree, "model": model}
    optim = tree.get("optim")
    if tree.keys() >= _RECORDED and isinstance(optim, dict):
        tree = {**tree, "optim": _effective(optim)}
    return source if tree is source.tree else dataclasses.replace(source, tree=tree)


def _effective(optim: dict[str, Any]) -> dict[str, Any]:
    """The settings of an optimizer that reached it: records once held all, whatever it takes."""
    idle: set[str] = set()
    if optim.get("base_lr") is not None:
        idle.add("lr")
    opt = str(optim.get("opt", "adamw"))
    if None not in (optim.get("betas"), optim.get("eps"), optim.get("momentum")):
        if "adam" in opt or "lion" in opt or "lamb" in opt:
            idle |= {"momentum", *(["eps"] if "lion" in opt else [])}
        else:
            idle |= {"betas", "eps"}
    return {**optim, **dict.fromkeys(idle)}
