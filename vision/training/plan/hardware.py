"""What one H100 SXM and its links do. Every number says whose it is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A number, its unit, who says so ("vendor" or "assumed") and what it stands for."""

    value: float
    unit: str
    source: str
    meaning: str


# vendor: NVIDIA H100 Tensor Core GPU data sheet, SXM5 column, without sparsity; NVIDIA ConnectX-7
FIGURES = {
    "bf16": Figure(989e12, "FLOP/s", "vendor", "dense bf16 or fp16 on tensor cores"),
    "tf32": Figure(
        495e12, "FLOP/s", "vendor", "dense fp32 input on tensor cores, which training allows"
    ),
    "fp32": Figure(67e12, "FLOP/s", "vendor", "fp32 outside tensor cores"),
    "memory": Figure(80e9, "B", "vendor", "HBM3 per GPU"),
    "bandwidth": Figure(3.35e12, "B/s", "vendor", "HBM3"),
    "nvlink": Figure(450e9, "B/s", "vendor", "NVLink per GPU and direction (900 GB/s both ways)"),
    "network": Figure(
        50e9, "B/s", "vendor", "400 Gb/s per adapter and direction; one per GPU is assumed"
    ),
    "node": Figure(8, "GPUs", "assumed", "per node, adapters working in parallel"),
    "matmul_share": Figure(0.6, "of peak", "assumed", "reached by matrix products"),
    "attention_share": Figure(0.3, "of peak", "assumed", "reached by fused attention"),
    "grouped_share": Figure(
        0.3, "of peak", "assumed", "reached by depthwise convolutions, of the fp32 peak"
    ),
    "bandwidth_share": Figure(0.85, "of peak", "assumed", "reached by memory-bound kernels"),
    "link_share": Figure(0.8, "of peak", "assumed", "reached by NCCL on NVLink and network"),
    "launch": Figure(5e-6, "s", "assumed", "shortest time from one kernel's start to the next"),
    "reserve": Figure(
        2e9, "B", "assumed", "CUDA context, NCCL and cuBLAS workspaces, fragmentation"
    ),
}


def value(name: str) -> float:
    """The number called `name` in FIGURES, in its unit."""
    return FIGURES[name].value


def link_bandwidth(devices: int) -> float:
    """Bytes/s that each GPU passes on in a ring over `devices` GPUs (NCCL's bus bandwidth).

    Within a node NVLink; over nodes the slower of NVLink and all adapters of a node together,
    which carry as many rings.
    """
    node = int(value("node"))
    inside = value("nvlink")
    reached = inside if devices <= node else min(inside, node * value("network"))
    return reached * value("link_share")
