"""Unified normalization of a first step, when the window is not full yet."""

OPTIONS = {"warmup": 0.0, "decay": 0.7, "eps": 1e-3}


def formula(x, p, o):
    moment = (x.detach() ** 2).reshape(-1, x.shape[-1]).mean(0)
    scale, decay = (moment + o.get("eps", 1e-5)) ** 0.5, o.get("decay", 0.9)
    leaf, z = x.clone(), x.detach() / scale

    def gradient(g):  # of z
        nu = decay * p["nu"] + (1 - decay) * (g * z).reshape(-1, x.shape[-1]).mean(0)
        return (g - nu * z) / scale

    leaf.register_hook(gradient)
    y = z + (leaf - leaf.detach())
    return p["weight"] * y + p["bias"] if "weight" in p else y


def evaluated(x, p, o):
    y = x / (p["running_moment"] + o.get("eps", 1e-5)) ** 0.5
    return p["weight"] * y + p["bias"] if "weight" in p else y


def moved(x, p, o):
    moment, decay = (x**2).reshape(-1, x.shape[-1]).mean(0), o.get("decay", 0.9)
    moments = p["moments"].roll(-1, 0)
    moments[-1] = moment
    running = decay * p["running_moment"] + (1 - decay) * moment
    return p | {"moments": moments, "running_moment": running, "steps": p["steps"] + 1}
