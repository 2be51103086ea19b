"""Power normalization, with the gradient that its authors' code has."""

import torch

OPTIONS = {"num_groups": 4, "warmup": 0.0, "backward_decay": 0.7, "eps": 1e-3}


def formula(x, p, o):
    eps = o.get("eps", 1e-5)
    u = grouped(x, o)
    moment = (u.detach() ** 2).reshape(-1, x.shape[-1]).mean(0)
    phi = moment if p["progress"] < o.get("warmup", 0.1) else p["phi"]
    z = (u / (phi + eps) ** 0.5).detach()
    u.register_hook(
        lambda g: (g - (1 - o.get("backward_decay", 0.9)) * p["nu"] * z) / (moment + eps) ** 0.5
    )
    return affine(z + (u - u.detach()), p)  # g reaches u as it is


def grouped(x, o):
    eps, parts = o.get("eps", 1e-5), []
    for part in x.chunk(o.get("num_groups", 1), -1):
        top = max(float(part.detach().abs().max()), 1.0)
        small = part / top
        mean = (small**2).mean(-1, keepdim=True)
        parts.append(small / (mean + eps / top / top) ** 0.5)
    return torch.cat(parts, -1)


def evaluated(x, p, o):
    return affine(grouped(x, o) / (p["phi"] + o.get("eps", 1e-5)) ** 0.5, p)


def moved(x, p, o):
    moment = (grouped(x, o) ** 2).reshape(-1, x.shape[-1]).mean(0)
    steps, phi = p["steps"] + 1, p["phi"]
    if p["progress"] < o.get("warmup", 0.1):
        phi = phi * (steps - 1) / steps + moment / steps
    return p | {"phi": 0.9 * phi + 0.1 * moment, "steps": steps}


def affine(y, p):
    return p["weight"] * y + p["bias"] if "weight" in p else y
