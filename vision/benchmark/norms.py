"""Every norm in each of its implementations, on the activations of ViT-Ti/B/L and DiT-XL.

Forward, forward and backward (medians), bytes kept between them, bytes per second as a fraction of
a plain copy's (x.clone()) measured beside it, ratio to nn.LayerNorm. "by" says what computes:
torch (its own layer), formula (the norm's plain formula), torch.compile (that formula, compiled),
compiled (our C++ kernel), triton (ours), liger (Liger-Kernel's).
"""

from __future__ import annotations

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vision.benchmark import command_line
from vision.benchmark.command_line import report
from vision.benchmark.timing import median_times
from vision.environment import choose_device
from vision.norms import create_norm, list_norms
from vision.norms.kernels.backend import choose_backend

TOKENS = 197  # of a 224 x 224 image in patches of 16, and the class token
WIDTHS = {"ViT-Ti": 192, "ViT-B": 768, "ViT-L": 1024, "DiT-XL": 1152}
HEADS = 16  # of SeeDNorm, as for vision in its paper
BASELINE = ("layernorm", "torch")


@dataclass(frozen=True)
class NormResult:
    """One norm in one implementation at one shape; times are medians."""

    norm: str
    implementation: str
    shape: str  # name of the model
    rows: int
    dim: int
    dtype: str
    forward: float  # seconds
    forward_backward: float  # seconds
    saved_bytes: int  # kept from forward to backward, parameters aside
    forward_copy_fraction: float  # of a copy's bytes/s; one read and one write
    forward_backward_copy_fraction: float  # the same; three reads and two writes
    forward_ratio: float  # to nn.LayerNorm
    forward_backward_ratio: float


@dataclass(frozen=True)
class Implementation:
    """A norm, what computes it, and how to make it for a number of channels."""

    norm: str
    name: str
    make: Callable[[int], nn.Module]


def add_arguments(parser: ArgumentParser) -> None:
    """The arguments of this subject."""
    command_line.add_arguments(parser, batch=64, rounds=20)
    parser.add_argument("--peer", action="append", default=[], choices=["liger"])
    parser.add_argument("--torch-compile", action=BooleanOptionalAction, default=True)


def run(arguments: Namespace) -> None:
    """Measure, print and write the results. Raises ValueError for what cannot run here."""
    device, dtype = choose_device(arguments.device), getattr(torch, arguments.dtype)
    found = implementations(device, arguments.torch_compile, arguments.peer)
    results = list(benchmark_norms(found, arguments.batch, dtype, device, arguments.rounds))
    columns: dict[str, Callable[[NormResult], str]] = {
        "shape": lambda r: f"{r.shape} {r.rows} x {r.dim}",
        "norm": lambda r: r.norm,
        "by": lambda r: r.implementation,
        "fwd ms": lambda r: f"{r.forward * 1e3:.3g}",
        "/LN": lambda r: f"{r.forward_ratio:.2f}",
        "of copy": lambda r: f"{r.forward_copy_fraction:.0%}",
        "f+b ms": lambda r: f"{r.forward_backward * 1e3:.3g}",
        "f+b/LN": lambda r: f"{r.forward_backward_ratio:.2f}",
        "f+b of copy": lambda r: f"{r.forward_backward_copy_fraction:.0%}",
        "saved MiB": lambda r: f"{r.saved_bytes / 2**20:.1f}",
    }
    report(results, columns, arguments.json, text_columns=3)


def implementations(
    device: torch.device, compiled: bool, peers: Sequence[str] = ()
) -> list[Implementation]:
    """nn.LayerNorm, every registered norm in its implementations, and what `peers` have.

    `compiled` includes the plain formulas under torch.compile. Raises ValueError where a peer is
    not installed or cannot run on `device`.
    """
    found = [
        Implementation(*BASELINE, nn.LayerNorm),
        Implementation("rmsnorm", "torch", partial(nn.RMSNorm, eps=1e-6)),
    ]
    for name in list_norms():
        if name == "layernorm":
            continue  # is nn.LayerNorm with a cast
        options: dict[str, Any] = {}
        if name == "seednorm":
            options = {"num_heads": HEADS, "backend": "eager"}
        make = partial(create_norm, name, **options)
        found.append(Implementation(name, "formula", make))
        if compiled:
            found.append(Implementation(name, "torch.compile", partial(_compiled, make)))
    kernel = "triton" if device.type == "cuda" else "compiled"
    choose_backend(kernel, torch.empty(1, 1, device=device), 1)  # a ValueError says why it cannot
    make = partial(create_norm, "seednorm", num_heads=HEADS, backend=kernel)
    found.append(Implementation("seednorm", kernel, make))
    return found + (_liger(device) if "liger" in peers else [])


def benchmark_norms(
    found: list[Implementation], batch: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> Iterator[NormResult]:
    """Measure all on `[batch * 197, width]` for each width."""
    # all layers share one `forward`, and each needs graphs of its own
    torch.compiler.config.recompile_limit = max(64, 4 * len(found))
    for shape, dim in WIDTHS.items():
        torch.compiler.reset()
        x = torch.randn(batch * TOKENS, dim, device=device).to(dtype)
        g = torch.randn_like(x)
        layers = {f"{i.norm} {i.name}": _awake(i.make(dim).to(device)) for i in found}
        works = (
            {name: partial(once, layer, x, g) for name, layer in layers.items()}
            for once in (_forward, _forward_backward)
        )
        forward, both = (median_times({"copy": x.clone, **w}, device, rounds) for w in works)
        first = " ".join(BASELINE)
        for implementation, (name, layer) in zip(found, layers.items(), strict=True):
            yield NormResult(
                implementation.norm,
                implementation.name,
                shape,
                rows=batch * TOKENS,
                dim=dim,
                dtype=str(dtype).removeprefix("torch."),
                forward=forward[name],
                forward_backward=both[name],
                saved_bytes=saved_bytes(layer, x),
                forward_copy_fraction=forward["copy"] / forward[name],
                forward_backward_copy_fraction=2.5 * both["copy"] / both[name],
                forward_ratio=forward[name] / forward[first],
                forward_backward_ratio=both[name] / both[first],
            )


def saved_bytes(layer: nn.Module, x: Tensor) -> int:
    """Bytes that a forward keeps for the backward, the layer's own parameters aside."""
    own = {p.data_ptr() for p in layer.parameters()}
    seen: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            seen[t.data_ptr()] = max(seen.get(t.data_ptr(), 0), t.numel() * t.element_size())
        return t

    # the result holds what was kept: without it addresses would be used twice
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        result = layer(x.detach().requires_grad_())
    del result
    return sum(seen.values())


def _forward(layer: nn.Module, x: Tensor, g: Tensor) -> None:
    with torch.no_grad():
        layer(x)


def _forward_backward(layer: nn.Module, x: Tensor, g: Tensor) -> None:
    leaf = x.detach().requires_grad_()
    layer.zero_grad(set_to_none=True)
    layer(leaf).backward(g)


def _compiled(make: Callable[[int], nn.Module], dim: int) -> nn.Module:
    layer = make(dim)
    layer.compile(fullgraph=True)  # where it gives up, it must not run the plain formula instead
    return layer


def _awake(layer: nn.Module) -> nn.Module:
    """SeeDNorm with tanh values away from 0, as after some training."""
    beta = getattr(layer, "beta", None)
    if isinstance(beta, nn.Parameter):
        nn.init.normal_(beta, std=0.1)
    return layer


def _liger(device: torch.device) -> list[Implementation]:
    if device.type != "cuda":
        raise ValueError("Liger-Kernel's kernels are Triton's and run on a GPU only")
    try:
        from liger_kernel import transformers as liger
    except ImportError as error:
        raise ValueError("--peer liger needs its package: pip install liger-kernel") from error
    return [
        Implementation("layernorm", "liger", liger.LigerLayerNorm),
        Implementation("rmsnorm", "liger", liger.LigerRMSNorm),
        Implementation("dyt", "liger", liger.LigerDyT),
    ]
