"""Dynamic layer normalization, image by image."""

import torch

OPTIONS = {"summary_dim": 5, "eps": 1e-2}


def formula(x, p, o):
    images = x.reshape(1 if x.ndim == 1 else x.shape[0], -1, x.shape[-1])
    # over its largest entry, so that squares exist for any x
    top = max(float(x.detach().abs().max()), 1.0)
    parts = []
    for image in images:
        tanh = [torch.tanh((p["summary"] * x).sum(-1) + p["summary_bias"]) for x in image]
        summary = sum(tanh) / len(image)
        scale = p.get("weight", 1.0) + (p["to_scale"] * summary).sum(-1)
        shift = p.get("bias", 0.0) + (p["to_shift"] * summary).sum(-1)
        small = (image - image.mean(-1, keepdim=True)) / top
        var = (small**2).mean(-1, keepdim=True) + o.get("eps", 1e-6) / top / top
        parts.append(scale * small / var**0.5 + shift)
    return torch.stack(parts).reshape(x.shape)
