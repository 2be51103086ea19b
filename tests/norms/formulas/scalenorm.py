"""ScaleNorm, as one length per token."""

OPTIONS = {"eps": 2.0}  # of the size of a token's length, so that both sides of the maximum occur


def formula(x, p, o):
    eps = o.get("eps", 1e-3)
    # over its largest entry, so that squares exist for any x
    top = max(float(x.detach().abs().max()), 1.0)
    squared = ((x / top) ** 2).sum(-1, keepdim=True)
    length = squared.clamp(min=(eps / top) ** 2) ** 0.5
    return p.get("scale", x.shape[-1] ** 0.5) * (x / top) / length
