"""What tells two models apart that were loaded from the same place."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn


def fingerprint(*parts: Any) -> str:
    """SHA-256, in hexadecimal, of the configurations of diffusers' models and schedulers, and of
    the tensors of the models; None among `parts` counts as nothing."""
    digest = hashlib.sha256()
    for part in parts:
        config = {} if part is None else public_config(part)
        digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name, tensor in part.state_dict().items() if isinstance(part, nn.Module) else ():
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def public_config(part: Any) -> dict[str, Any]:
    """A configuration without what diffusers notes beside it, such as its version."""
    return {key: value for key, value in part.config.items() if not key.startswith("_")}
