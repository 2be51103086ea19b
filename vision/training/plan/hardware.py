"""What an H100 SXM and its network do, and what is assumed of a training step on it."""

from __future__ import annotations

from typing import NamedTuple


class Constant(NamedTuple):
    """A number and its unit, where it is from ("vendor" or "assumed") and what it stands for."""

    value: float
    unit: str
    source: str
    meaning: str


# vendor: NVIDIA H100 Tensor Core GPU data sheet, SXM5 column, without sparsity; NVIDIA ConnectX-7
CONSTANTS = {
    "bf16": Constant(989e12, "FLOP/s", "vendor", "bf16 or fp16 on tensor cores"),
    "tf32": Constant(495e12, "FLOP/s", "vendor", "fp32 on tensor cores (TF32, which we allow)"),
    "memory": Constant(80e9, "B", "vendor", "HBM3 per GPU"),
    "bandwidth": Constant(3.35e12, "B/s", "vendor", "HBM3"),
    "nvlink": Constant(450e9, "B/s", "vendor", "NVLink per GPU and direction"),
    "network": Constant(50e9, "B/s", "vendor", "a 400 Gb/s adapter, per direction"),
    "node": Constant(8, "GPUs", "assumed", "per node, each with an adapter"),
    "flops_reached": Constant(0.55, "of peak", "assumed", "FLOP/s that matrix products reach"),
    "memory_reached": Constant(0.85, "of peak", "assumed", "HBM3 bandwidth reached"),
    "network_reached": Constant(0.8, "of peak", "assumed", "NVLink and network bandwidth reached"),
    "traffic": Constant(4.5, "B", "assumed", "memory traffic per byte kept for the backward"),
    "traffic_autocast": Constant(7, "B", "assumed", "the same with autocast, which adds copies"),
    "operation": Constant(10e-6, "s", "assumed", "least time per operation, with its backward"),
    "compiled": Constant(0.5, "", "assumed", "factor of torch.compile on the last three"),
    "reserve": Constant(2e9, "B", "assumed", "CUDA context, workspaces, fragmentation"),
}


def value(name: str) -> float:
    """The number called `name` in CONSTANTS, in its unit."""
    return CONSTANTS[name].value


def ring_bandwidth(devices: int) -> float:
    """Bytes/s that each GPU passes on in a ring over `devices` GPUs (NCCL's bus bandwidth).

    Within a node NVLink; across nodes all adapters of a node together, which carry as many rings.
    """
    adapters = value("node") * value("network")
    several = devices > value("node")
    return min(value("nvlink"), adapters if several else value("nvlink")) * value("network_reached")
