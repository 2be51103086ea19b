"""Cluster-based normalization, cluster by cluster."""

import torch

OPTIONS = {"num_clusters": 4, "eps": 0.1}


def formula(x, p, o):
    prior = torch.exp(p["prior"]) / torch.exp(p["prior"]).sum()
    variances = torch.log(1 + torch.exp(p["variance"])) + o.get("eps", 1e-3)
    clusters = list(zip(p["mean"], variances, prior, strict=True))
    logs = [torch.log(w) - torch.log(v) / 2 - (x - m) ** 2 / (2 * v) for m, v, w in clusters]
    y = 0
    for own, (m, v, w) in zip(logs, clusters, strict=True):
        ratios = [torch.exp((other - own).clamp(max=700)) for other in logs]  # exp(710) overflows
        y = y + (x - m) / (v * w) ** 0.5 / sum(ratios)
    return p["weight"] * y + p["bias"] if "weight" in p else y
