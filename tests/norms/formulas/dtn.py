"""Dynamic token normalization, token by token; of three tokens the first has no place."""

import math

import torch

OPTIONS = {"num_heads": 4, "eps": 1e-3}


def formula(x, p, o):
    if x.ndim < 3:
        y = normalized(x.reshape(-1, 1, x.shape[-1]), [], p, o)
    elif x.ndim == 3:
        y = normalized(x, [(0, column) for column in range(x.shape[1] - 1)], p, o)
    else:
        places = [(row, column) for row in range(x.shape[1]) for column in range(x.shape[2])]
        y = normalized(x.flatten(1, 2), places, p, o)
    unused = sum(0 * p[name].sum() for name in ("mean_gate", "var_gate", "places"))  # no places
    y = y.reshape(x.shape) + unused
    return p["weight"] * y + p["bias"] if "weight" in p else y


def normalized(images, places, p, o):
    """`[B, L, D]`, of whose last tokens `places` has rows and columns."""
    first, (_, length, dim) = images.shape[1] - len(places), images.shape
    size = dim // o.get("num_heads", 8)
    top = max(float(images.detach().abs().max()), 1.0)  # so that squares exist for any x
    eps, parts = o.get("eps", 1e-5) / top / top, []
    for image in images / top:
        for t in range(length):
            own, own_var = image[t].mean(), ((image[t] - image[t].mean()) ** 2).mean()
            if t < first:
                parts.append((image[t] - own) / (own_var + eps) ** 0.5)
                continue
            heads = []
            for h in range(dim // size):
                g, v = (1 / (1 + torch.exp(-p[f"{name}_gate"][h])) for name in ("mean", "var"))
                scores = []
                for row, column in places:
                    dy, dx = places[t - first][0] - row, places[t - first][1] - column
                    known = torch.tensor([dx, dy, dx**2 + dy**2], dtype=image.dtype)
                    scores.append((known * p["places"][h]).sum())
                scores = torch.stack(scores)
                weights = torch.exp(scores - scores.max().detach())
                weights = (weights / weights.sum())[:, None]
                x = image[first:, h * size : (h + 1) * size]
                around = (weights * x).sum(0)
                spread = (weights * (x - around) ** 2).sum(0)
                mean, var = g * own + (1 - g) * around, v * own_var + (1 - v) * spread
                heads.append((x[t - first] - mean) / (var + eps) ** 0.5)
            parts.append(torch.cat(heads))
    return torch.stack(parts).reshape(images.shape)


def start(heads):
    """The initial value of `places`."""
    side = math.isqrt(heads)
    offsets = [i - (side - 1) / 2 for i in range(side)]
    near = [[2 * x, 2 * y, -1.0] for y in offsets for x in offsets]
    return torch.tensor(near + [[0.0, 0.0, 0.0]] * (heads - side**2))
