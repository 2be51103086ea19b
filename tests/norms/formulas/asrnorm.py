"""ASR-Norm, image by image."""

import torch

OPTIONS = {"eps": 1e-2}


def formula(x, p, o):
    def layer(name, x):
        return (p[name] * x).sum(-1) + p[f"{name}_bias"]

    def network(networks, output, x):
        return layer(f"{networks}.{output}", layer(f"{networks}.hidden", x).clamp(min=0))

    images = x.reshape(1 if x.ndim == 1 else x.shape[0], -1, x.shape[-1])
    of_mean, of_std = 1 / (1 + torch.exp(-p["standardize.mix"]))
    parts = []
    for image in images:
        mean = image.mean(0)
        std = (((image - mean) ** 2).mean(0) + o.get("eps", 1e-6)) ** 0.5
        mixed = of_mean * network("standardize", "of_mean", mean) + (1 - of_mean) * mean
        learned = network("standardize", "of_std", std).clamp(min=0)
        y = (image - mixed) / (of_std * learned + (1 - of_std) * std)
        if "weight" in p:
            of_shift, of_scale = 1 / (1 + torch.exp(-p["rescale.mix"]))
            shift = of_shift * torch.tanh(network("rescale", "of_mean", mean))
            scale = of_scale / (1 + torch.exp(-network("rescale", "of_std", std)))
            y = (p["weight"] + scale) * y + p["bias"] + shift
        parts.append(y)
    return torch.stack(parts).reshape(x.shape)
