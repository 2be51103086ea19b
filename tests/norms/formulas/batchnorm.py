"""Batch normalization, channel by channel."""

import torch

OPTIONS = {"eps": 1e-3, "momentum": 0.3}


def formula(x, p, o):
    rows = x.reshape(-1, x.shape[-1])
    columns = []
    for channel in rows.unbind(1):
        # over its largest entry, so that squares exist for any x
        top = max(float(channel.detach().abs().max()), 1.0)
        small = (channel - channel.mean()) / top
        var = (small**2).mean() + o.get("eps", 1e-5) / top / top
        columns.append(small / var**0.5)
    return affine(torch.stack(columns, 1).reshape(x.shape), p)


def evaluated(x, p, o):
    std = (p["running_var"] + o.get("eps", 1e-5)) ** 0.5
    return affine((x - p["running_mean"]) / std, p)


def moved(x, p, o):
    rows, rate = x.reshape(-1, x.shape[-1]), o.get("momentum", 0.1)
    var = rows.var(0) if len(rows) > 1 else torch.zeros_like(rows[0])
    return {
        "running_mean": (1 - rate) * p["running_mean"] + rate * rows.mean(0),
        "running_var": (1 - rate) * p["running_var"] + rate * var,
    }


def affine(y, p):
    return p["weight"] * y + p["bias"] if "weight" in p else y
