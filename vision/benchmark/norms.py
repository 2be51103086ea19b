"""Every norm in each of its implementations, on the activations of vision transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vision.benchmark.timing import median_times
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
    forward_copy_share: float  # bytes/s as a share of a copy's; one read and one write
    forward_backward_copy_share: float  # the same; three reads and two writes
    forward_ratio: float  # to nn.LayerNorm
    forward_backward_ratio: float


@dataclass(frozen=True)
class Contender:
    """A norm and what computes it."""

    norm: str
    implementation: str
    make: Callable[[int], nn.Module]


def contenders(device: torch.device, compiled: bool, peers: tuple[str, ...]) -> list[Contender]:
    """nn.LayerNorm, every registered norm in its implementations, and what other libraries have.

    Args:
        device: Where they are to run.
        compiled: Include the plain formulas under torch.compile.
        peers: Other libraries: "liger".

    Raises:
        ValueError: a peer is not installed or cannot run here.
    """
    found = [
        Contender(*BASELINE, partial(nn.LayerNorm, device=device)),
        Contender("rmsnorm", "torch", partial(nn.RMSNorm, eps=1e-6, device=device)),
    ]
    for name in list_norms():
        if name == "layernorm":
            continue  # is nn.LayerNorm with a cast
        found.append(Contender(name, "formula", partial(_plain, name, device)))
        if compiled:
            found.append(Contender(name, "torch.compile", partial(_compiled, name, device)))
    kernel = "triton" if device.type == "cuda" else "compiled"
    choose_backend(kernel, torch.empty(1, 1, device=device), 1)  # a ValueError says why it cannot
    found.append(Contender("seednorm", kernel, partial(_seednorm, device, kernel)))
    if "liger" in peers:
        found.extend(_liger(device))
    return found


def benchmark_norms(
    found: list[Contender],
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    rounds: int,
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[NormResult]:
    """Measures all contenders at each width; `[batch * 197, width]` each."""
    # all layers share one `forward`, and each needs graphs of its own
    torch._dynamo.config.recompile_limit = max(64, 4 * len(found))
    for shape, dim in WIDTHS.items():
        torch._dynamo.reset()
        rows = batch * TOKENS
        x = torch.randn(rows, dim, device=device).to(dtype)
        g = torch.randn_like(x)
        layers = {(c.norm, c.implementation): _awake(c.make(dim)) for c in found}
        progress(f"{shape}: forward")
        forward = _times({k: _forward(n, x) for k, n in layers.items()}, x, device, rounds)
        progress(f"{shape}: forward and backward")
        both = _times({k: _both(n, x, g) for k, n in layers.items()}, x, device, rounds)
        for key, layer in layers.items():
            name = " ".join(key)
            yield NormResult(
                *key,
                shape,
                rows,
                dim,
                str(dtype).removeprefix("torch."),
                forward=forward[name],
                forward_backward=both[name],
                saved_bytes=saved_bytes(layer, x),
                forward_copy_share=forward["copy"] / forward[name],
                forward_backward_copy_share=2.5 * both["copy"] / both[name],
                forward_ratio=forward[name] / forward[" ".join(BASELINE)],
                forward_backward_ratio=both[name] / both[" ".join(BASELINE)],
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


def _times(
    work: dict[tuple[str, str], Callable[[], object]], x: Tensor, device: torch.device, rounds: int
) -> dict[str, float]:
    named = {" ".join(key): f for key, f in work.items()}
    return median_times({"copy": x.clone, **named}, device, rounds)


def _forward(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.no_grad():
            layer(x)

    return run


def _both(layer: nn.Module, x: Tensor, g: Tensor) -> Callable[[], object]:
    leaf = x.detach().requires_grad_()

    def run() -> None:
        leaf.grad = None
        layer.zero_grad(set_to_none=True)
        layer(leaf).backward(g.to(leaf.dtype))
        leaf.grad = None

    return run


def _plain(name: str, device: torch.device, dim: int) -> nn.Module:
    if name == "seednorm":
        return _seednorm(device, "eager", dim)
    return create_norm(name, dim, device=device)


def _compiled(name: str, device: torch.device, dim: int) -> nn.Module:
    layer = _plain(name, device, dim)
    layer.compile(fullgraph=True)  # where it gives up, it must not run the plain formula instead
    return layer


def _seednorm(device: torch.device, backend: str, dim: int) -> nn.Module:
    return create_norm("seednorm", dim, num_heads=HEADS, backend=backend, device=device)


def _awake(layer: nn.Module) -> nn.Module:
    """SeeDNorm with tanh values away from 0, as after some training."""
    beta = getattr(layer, "beta", None)
    if isinstance(beta, nn.Parameter):
        nn.init.normal_(beta, std=0.1)
    return layer


def _liger(device: torch.device) -> list[Contender]:
    if device.type != "cuda":
        raise ValueError("Liger-Kernel's kernels are Triton's and run on a GPU only")
    try:
        from liger_kernel import transformers as liger
    except ImportError as error:
        raise ValueError("--peer liger needs its package: pip install liger-kernel") from error
    return [
        Contender(name, "liger", partial(_moved, cls, device))
        for name, cls in (
            ("layernorm", liger.LigerLayerNorm),
            ("rmsnorm", liger.LigerRMSNorm),
            ("dyt", liger.LigerDyT),
        )
    ]


def _moved(layer: type[nn.Module], device: torch.device, dim: int) -> nn.Module:
    return layer(dim).to(device)
