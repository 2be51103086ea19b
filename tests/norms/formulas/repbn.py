"""A mixture of layer and re-parameterized batch normalization."""

OPTIONS = {"eps": 1e-3, "end": 1.0}


def formula(x, p, o):
    rows, eps = x.reshape(-1, x.shape[-1]), o.get("eps", 1e-5)
    batch = standard(rows.T, eps).T.reshape(x.shape)
    layer = standard(x, eps)
    if "weight" in p:
        batch = p["weight"] * batch + p["bias"]
        layer = p["layernorm_weight"] * layer + p["layernorm_bias"]
    return p["mix"] * layer + (1 - p["mix"]) * (batch + p["eta"] * x)


def standard(x, eps):
    """Over the last axis; over the largest entry, so that squares exist for any x."""
    top = x.detach().abs().amax(-1, keepdim=True).clamp(min=1.0)
    small = (x - x.mean(-1, keepdim=True)) / top
    return small / ((small**2).mean(-1, keepdim=True) + eps / top / top) ** 0.5


def evaluated(x, p, o):
    y = (x - p["running_mean"]) / (p["running_var"] + o.get("eps", 1e-5)) ** 0.5
    return (p["weight"] * y + p["bias"] if "weight" in p else y) + p["eta"] * x


def moved(x, p, o):
    rows = x.reshape(-1, x.shape[-1])
    return {
        "running_mean": 0.9 * p["running_mean"] + 0.1 * rows.mean(0),
        "running_var": 0.9 * p["running_var"] + 0.1 * rows.var(0),
        "mix": p["mix"],
    }
