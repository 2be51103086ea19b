"""Normalization with a learned mean and variance."""

OPTIONS = {"eps": 0.1}


def formula(x, p, o):
    product = p["v"] * p["v_w"]
    var = product * (product > 0) + o.get("eps", 1e-7)
    y = (x - p["m"] * p["m_w"]) * var**-0.5
    return p["weight"] * y + p["bias"] if "weight" in p else y
