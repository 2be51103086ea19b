"""Every norm in each of its implementations, on the activations of ViT-Ti/S/B/L, DiT-XL and digits.

Forward, forward and backward (medians), bytes kept between them, bytes per second as a fraction of
a plain copy's (x.clone()) measured beside it, ratio to nn.LayerNorm, and "bound", the ratio that
the copy's speed would allow (roofline: three reads and two writes). "by" says what computes:
torch (its own layer), formula (the norm's plain formula), torch.compile (that formula, compiled),
compiled (our C++ kernel), triton (ours), liger (Liger-Kernel's).

    OMP_NUM_THREADS=2 python tools/benchmark.py norms --no-formulas
    OMP_NUM_THREADS=2 python tools/benchmark.py norms --no-formulas --dtype bfloat16
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
from vision.norms import create_norm, get_norm, list_norms
from vision.norms.fused import FusedNorm
from vision.norms.kernels.backend import choose_backend
from vision.norms.kernels.ops import Kernel

TOKENS = 197  # of a 224 x 224 image in patches of 16, and the class token
WIDTHS = {"ViT-Ti": 192, "ViT-S": 384, "ViT-B": 768, "ViT-L": 1024, "DiT-XL": 1152}
SMALL = {"small": (160, 768), "narrow": (320, 192)}  # rows and width; as in runs on digits
_CALLS = 8  # on small shapes, that are timed at a time
HEADS = 16  # of SeeDNorm, as for vision in its paper
# name in the table -> norm and options of its kernel
KERNELS: dict[str, tuple[str, dict[str, Any]]] = {
    "layernorm": ("layernorm", {}),
    "rmsnorm": ("rmsnorm", {}),
    "seednorm": ("seednorm", {"num_heads": HEADS}),
    "seednorm, 1 head": ("seednorm", {}),
    "seednorm, dropout": ("seednorm", {"num_heads": HEADS, "coefficient_dropout": 0.1}),
    "dyt": ("dyt", {}),
    "derf": ("derf", {}),
    "isru": ("isru", {}),
    "dyisru": ("dyisru", {}),
}
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
    bound: float  # what forward_backward_ratio would be at the copy's bytes/s


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
    both = BooleanOptionalAction
    parser.add_argument("--formulas", action=both, default=True, help="measure plain formulas too")
    parser.add_argument("--torch-compile", action=both, default=True, help="and these compiled")


def run(arguments: Namespace) -> None:
    """Measure, print and write the results. Raises ValueError for what cannot run here."""
    device, dtype = choose_device(arguments.device), getattr(torch, arguments.dtype)
    formulas = arguments.formulas
    found = implementations(device, arguments.torch_compile, arguments.peer, formulas)
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
        "bound": lambda r: f"{r.bound:.2f}",
        "f+b of copy": lambda r: f"{r.forward_backward_copy_fraction:.0%}",
        "saved MiB": lambda r: f"{r.saved_bytes / 2**20:.1f}",
    }
    report(results, columns, arguments.json, text_columns=3)


def implementations(
    device: torch.device, compiled: bool, peers: Sequence[str] = (), formulas: bool = True
) -> list[Implementation]:
    """nn.LayerNorm, every registered norm in its implementations, and what `peers` have.

    `formulas` includes the plain ones, `compiled` these under torch.compile. Raises ValueError
    where a peer is not installed or cannot run on `device`.
    """
    found = [
        Implementation(*BASELINE, nn.LayerNorm),
        Implementation("rmsnorm", "torch", partial(nn.RMSNorm, eps=1e-6)),
    ]
    for name in list_norms() if formulas else []:
        if name == "layernorm":
            continue  # is nn.LayerNorm with a cast
        options: dict[str, Any] = {"num_heads": HEADS} if name == "seednorm" else {}
        if _kernel_of(name) is not None:
            options["backend"] = "eager"
        make = partial(create_norm, name, **options)
        found.append(Implementation(name, "formula", make))
        if compiled:
            found.append(Implementation(name, "torch.compile", partial(_compiled, make)))
    backend = "triton" if device.type == "cuda" else "compiled"
    for title, (name, options) in KERNELS.items():
        kernel = _kernel_of(name)
        if kernel is None or (backend == "triton" and not kernel.triton):
            continue
        choose_backend(backend, torch.empty(1, 1, device=device), 1, kernel)  # or a ValueError
        make = partial(create_norm, name, **options, backend=backend)
        found.append(Implementation(title, backend, make))
    return found + (_liger(device) if "liger" in peers else [])


def benchmark_norms(
    found: list[Implementation], batch: int, dtype: torch.dtype, device: torch.device, rounds: int
) -> Iterator[NormResult]:
    """Measure all on `[batch * 197, width]` for each width, and on the small shapes."""
    shapes = {name: (batch * TOKENS, dim) for name, dim in WIDTHS.items()} | SMALL
    # all layers share one `forward`, and each needs graphs of its own
    torch.compiler.config.recompile_limit = max(64, 4 * len(found))
    for shape, (rows, dim) in shapes.items():
        torch.compiler.reset()
        x = torch.randn(rows, dim, device=device).to(dtype)
        g = torch.randn_like(x)
        layers = {f"{i.norm} {i.name}": _awake(i.make(dim).to(device)) for i in found}
        calls = _CALLS if shape in SMALL and device.type == "cpu" else 1
        works = (
            {name: partial(once, layer, x, g) for name, layer in layers.items()}
            for once in (_forward, _forward_backward)
        )
        forward, both = (_times({"copy": x.clone, **work}, calls, device, rounds) for work in works)
        first = " ".join(BASELINE)
        for implementation, (name, layer) in zip(found, layers.items(), strict=True):
            yield NormResult(
                implementation.norm,
                implementation.name,
                shape,
                rows=rows,
                dim=dim,
                dtype=str(dtype).removeprefix("torch."),
                forward=forward[name],
                forward_backward=both[name],
                saved_bytes=saved_bytes(layer, x),
                forward_copy_fraction=forward["copy"] / forward[name],
                forward_backward_copy_fraction=2.5 * both["copy"] / both[name],
                forward_ratio=forward[name] / forward[first],
                forward_backward_ratio=both[name] / both[first],
                bound=2.5 * both["copy"] / both[first],
            )


def _times(
    work: dict[str, Callable[[], object]], calls: int, device: torch.device, rounds: int
) -> dict[str, float]:
    """Median seconds of one call, of `calls` that are made in a row."""

    def several(function: Callable[[], object]) -> None:
        for _ in range(calls):
            function()

    found = median_times({k: partial(several, f) for k, f in work.items()}, device, rounds)
    return {name: seconds / calls for name, seconds in found.items()}


def _kernel_of(name: str) -> Kernel | None:
    cls = get_norm(name)
    return cls.kernel if issubclass(cls, FusedNorm) else None


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
