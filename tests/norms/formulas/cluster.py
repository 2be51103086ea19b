"""Cluster-based normalization, cluster by cluster."""

import torch

OPTIONS = {"num_clusters": 2, "eps": 0.1}


def formula(x, p, o):
    prior = torch.exp(p["prior"]) / torch.exp(p["prior"]).sum()
    variances = torch.log(1 + torch.exp(p["variance"])) + o.get("eps", 1e-3)
    clusters = list(zip(p["mean"], variances, prior, strict=True))
    logs = [-((x - m) ** 2) / (2 * v) for m, v, _ in clusters]
    top = torch.stack(logs).amax(0).detach()  # the same for all clusters: it cancels
    dense = [pi * torch.exp(g - top) / v**0.5 for g, (_, v, pi) in zip(logs, clusters, strict=True)]
    y = 0
    for density, (m, v, pi) in zip(dense, clusters, strict=True):
        y = y + density / sum(dense) / pi**0.5 * (x - m) / v**0.5
    return p["weight"] * y + p["bias"] if "weight" in p else y
