"""Weights that timm offers for a model's name."""

from __future__ import annotations

import timm
from torch import Tensor

from vision.errors import first_line


def pretrained(name: str) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """timm's pretrained `name`: its tensors, and the `mean` and `std` of its pixels.

    Fetched once, then from the hub's cache.

    Raises:
        ValueError: timm has no weights for that name.
        FileNotFoundError: they are not in the cache and cannot be fetched.
    """
    offered = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if offered is None or not offered.has_weights:
        raise ValueError(
            f"model.pretrained = true: timm has no weights for {name}; timm.list_pretrained() "
            "names those that it has"
        )
    try:
        state = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # timm, the hub and the network each raise their own
        place = offered.hf_hub_id or offered.url
        raise FileNotFoundError(
            f"model.pretrained = true: the weights of {name} ({place}) cannot be fetched "
            f"({first_line(error)[:160]}); fetch them where there is a network and copy its "
            "Hugging Face cache, or name a file of them with model.init_from"
        ) from error
    return state, {"mean": list(offered.mean), "std": list(offered.std)}
