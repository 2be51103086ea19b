"""What an H100 SXM and its network do, and what is assumed of a training step on it."""

from __future__ import annotations

# value, unit, source, meaning; vendor: NVIDIA's data sheets of H100 SXM5 (dense) and ConnectX-7
CONSTANTS = {
    "bf16": (989e12, "FLOP/s", "vendor", "bf16 or fp16 on tensor cores"),
    "tf32": (495e12, "FLOP/s", "vendor", "fp32 on tensor cores (TF32, which we allow)"),
    "memory": (80e9, "B", "vendor", "HBM3 per GPU"),
    "bandwidth": (3.35e12, "B/s", "vendor", "HBM3"),
    "nvlink": (450e9, "B/s", "vendor", "NVLink per GPU and direction"),
    "network": (50e9, "B/s", "vendor", "a 400 Gb/s adapter, per direction"),
    "node": (8, "GPUs", "assumed", "per node, each with an adapter"),
    "flops_reached": (0.55, "of peak", "assumed", "FLOP/s that matrix products reach"),
    "memory_reached": (0.85, "of peak", "assumed", "HBM3 bandwidth reached"),
    "network_reached": (0.8, "of peak", "assumed", "NVLink and network bandwidth reached"),
    "traffic": (4.5, "B", "assumed", "memory traffic per byte kept for the backward"),
    "traffic_autocast": (7, "B", "assumed", "the same with autocast, which adds copies"),
    "traffic_compiled": (0.5, "", "assumed", "factor of torch.compile on this traffic"),
    "reserve": (2e9, "B", "assumed", "CUDA context, workspaces, fragmentation"),
}


def value(name: str) -> float:
    """The number called `name` in CONSTANTS, in its unit."""
    return CONSTANTS[name][0]


def ring_bandwidth(devices: int) -> float:
    """Bytes/s that each GPU passes on in a ring over `devices` GPUs (NCCL's bus bandwidth).

    Within a node NVLink; across nodes all adapters of a node together, which carry as many rings.
    """
    within = devices <= value("node")
    adapters = value("node") * value("network")
    rate = value("nvlink") if within else min(value("nvlink"), adapters)
    return rate * value("network_reached")
