"""Batch layer normalization: each channel over the batch and each token over its channels."""

OPTIONS = {"eps": 1e-2, "momentum": 0.3}


def formula(x, p, o):
    rows, eps = x.reshape(-1, x.shape[-1]), o.get("eps", 1e-3)
    images = 1 if x.ndim == 1 else x.shape[0]
    return mixed(standard(x, eps), standard(rows.T, eps).T.reshape(x.shape), images, p)


def mixed(feature, batch, images, p):
    y = (1 / images - 1e-4) * feature + (1 - (1 / images + 1e-4)) * batch
    y = y / feature.shape[-1] ** 0.5
    return p["weight"] * y + p["bias"] if "weight" in p else y


def standard(x, eps):
    """Over the last axis; over the largest entry, so that squares exist for any x."""
    top = x.detach().abs().amax(-1, keepdim=True).clamp(min=1.0)
    small = (x - x.mean(-1, keepdim=True)) / top
    return small / ((small**2).mean(-1, keepdim=True) + eps / top / top) ** 0.5


def evaluated(x, p, o):
    eps = o.get("eps", 1e-3)
    batch = (x - p["running_mean"]) / (p["running_var"] + eps) ** 0.5
    return mixed(standard(x, eps), batch, p["images"], p)


def moved(x, p, o):
    rows, rate = x.reshape(-1, x.shape[-1]), o.get("momentum", 0.1)
    return {
        "running_mean": (1 - rate) * p["running_mean"] + rate * rows.mean(0),
        "running_var": (1 - rate) * p["running_var"] + rate * rows.var(0),
        "images": p["images"] * 0 + x.shape[0],
    }
