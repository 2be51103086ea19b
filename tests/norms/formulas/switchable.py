"""Switchable normalization, statistic by statistic."""

import torch

OPTIONS = {"eps": 1e-3, "momentum": 0.4}


def formula(x, p, o):
    return mixed(x, p, o, lambda rows: (rows.mean(0), spread(rows.T)))


def evaluated(x, p, o):
    return mixed(x, p, o, lambda rows: (p["running_mean"], p["running_var"]))


def mixed(x, p, o, of_batch):
    images = x.reshape(1 if x.ndim == 1 else x.shape[0], -1, x.shape[-1])
    batch_mean, batch_var = of_batch(x.reshape(-1, x.shape[-1]))
    kinds = ["instance", "layer", "batch"] if images.shape[1] > 1 else ["layer", "batch"]
    m = torch.exp(p["mean_weight"][-len(kinds) :])
    v = torch.exp(p["var_weight"][-len(kinds) :])
    parts = []
    for image in images:
        means = {
            "instance": image.mean(0, keepdim=True),
            "layer": image.mean(1, keepdim=True),
            "batch": batch_mean[None],
        }
        variances = {
            "instance": spread(image.T)[None],
            "layer": spread(image)[:, None],
            "batch": batch_var[None],
        }
        mean = sum(m[i] / m.sum() * means[kind] for i, kind in enumerate(kinds))
        var = sum(v[i] / v.sum() * variances[kind] for i, kind in enumerate(kinds))
        parts.append((image - mean) / (var + o.get("eps", 1e-5)) ** 0.5)
    y = torch.stack(parts).reshape(x.shape)
    return p["weight"] * y + p["bias"] if "weight" in p else y


def spread(rows):
    """Biased variance of each row."""
    return sum((column - rows.mean(1)) ** 2 for column in rows.T) / rows.shape[1]


def moved(x, p, o):
    rows, rate = x.reshape(-1, x.shape[-1]), o.get("momentum", 0.1)
    return {
        "running_mean": (1 - rate) * p["running_mean"] + rate * rows.mean(0),
        "running_var": (1 - rate) * p["running_var"] + rate * spread(rows.T),
    }
