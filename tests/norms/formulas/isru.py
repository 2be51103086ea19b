"""Inverse square root unit."""


def formula(x, p, o):
    z = p["alpha"] * x + p["shift"]
    y = z / (z * z + 1) ** 0.5
    return p["weight"] * y + p["bias"] if "weight" in p else y
