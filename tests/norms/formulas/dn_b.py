"""Batch normalization whose scale and shift a network makes for each image."""

import torch

OPTIONS = {"eps": 1e-2, "hidden_dim": 3}


def formula(x, p, o):
    def over_batch(rows):
        return rows.mean(0), ((rows - rows.mean(0)) ** 2).mean(0)

    return rescaled(x, p, o, over_batch)


def evaluated(x, p, o):
    return rescaled(x, p, o, lambda rows: (p["running_mean"], p["running_var"]))


def rescaled(x, p, o, of_batch):
    eps, dim = o.get("eps", 1e-5), x.shape[-1]
    mean, var = of_batch(x.reshape(-1, dim))
    parts = []
    for image in x.reshape(1 if x.ndim == 1 else x.shape[0], -1, dim):
        own = image.mean(0)
        std = (((image - own) ** 2).mean(0) + eps) ** 0.5
        seen = p["hidden"][:, :dim] @ own + p["hidden"][:, dim:] @ std
        a = torch.tanh(seen + p["hidden_bias"])
        scale = p.get("weight", 1.0) + p["to_scale"] @ a
        shift = p.get("bias", 0.0) + p["to_shift"] @ a
        parts.append(scale * (image - mean) / (var + eps) ** 0.5 + shift)
    return torch.stack(parts).reshape(x.shape)


def moved(x, p, o):
    rows = x.reshape(-1, x.shape[-1])
    return {
        "running_mean": 0.9 * p["running_mean"] + 0.1 * rows.mean(0),
        "running_var": 0.9 * p["running_var"] + 0.1 * rows.var(0),
    }
