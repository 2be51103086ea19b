"""Group normalization, group by group."""

import torch

OPTIONS = {"num_groups": 3, "eps": 1e-2}


def formula(x, p, o):
    images = x.reshape(1 if x.ndim == 1 else x.shape[0], -1, x.shape[-1])
    parts = []
    for group in images.chunk(o.get("num_groups", 8), dim=-1):
        # over its largest entry, so that squares exist for any x
        top = max(float(group.detach().abs().max()), 1.0)
        values = (group / top).flatten(1)
        values = values - values.mean(1, keepdim=True)
        var = (values**2).mean(1, keepdim=True) + o.get("eps", 1e-5) / top / top
        parts.append((values / var**0.5).reshape(group.shape))
    y = torch.cat(parts, -1).reshape(x.shape)
    return p["weight"] * y + p["bias"] if "weight" in p else y
