"""The operators within torch: registration, tracing, precision under autocast, memory kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from vision.norms import create_norm
from vision.norms.kernels import cpu, cpu_build
from vision.norms.seednorm import SeeDNorm


def norm(place, dim: int = 32, num_heads: int = 4, **options) -> nn.Module:
    made = create_norm(
        "seednorm", dim, num_heads=num_heads, backend=place.backend, device=place.device, **options
    )
    torch.manual_seed(0)
    nn.init.normal_(made.beta, std=0.1)
    return made


def is_fused(y: torch.Tensor) -> bool:
    """Whether a kernel computed it: by the operator of the norm, or by that for direct calls."""
    return "seednorm" in type(y.grad_fn).__name__ or "FusedNorm" in y.grad_fn.name()


@pytest.mark.parametrize("affine", [True, False])
def test_opcheck_passes(place, make, affine):
    inputs = make(place.device, (2, 3, 16), 2, affine=affine)
    both = (None, None) if affine else torch.randn(2, 2, 1, 16, device=place.device).unbind()
    kernel, settings = SeeDNorm.kernel, (None, *both, 2, 1e-6, 1.0, place.backend)
    torch.library.opcheck(kernel.forward, (inputs.x, *inputs.parameters, *settings))
    y, rstd, s = (t.detach() for t in kernel.forward(inputs.x, *inputs.parameters, *settings))
    given = [t if t is None else t.detach() for t in (inputs.x, *inputs.parameters)]
    more = (None, *both, rstd, s, 2, 1e-6, 1.0, place.backend)
    torch.library.opcheck(kernel.backward, (torch.ones_like(y), *given, *more))


@pytest.mark.parametrize("channels_first", [False, True])
def test_compiles_without_a_graph_break_for_any_number_of_rows(place, channels_first):
    layer = norm(place, channels_first=channels_first)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in (3, 5):
        shape = (2, 32, size) if channels_first else (2, size, 32)
        x = torch.randn(shape, device=place.device)
        results = []
        for function in (layer, compiled):
            leaf = x.clone().requires_grad_()
            y = function(leaf)
            results.append((y, *torch.autograd.grad(y.square().sum(), (leaf, layer.alpha))))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_exports_as_one_node(place):
    layer = norm(place)
    x = torch.randn(2, 3, 32, device=place.device)
    rows = torch.export.Dim("rows")
    program = torch.export.export(layer, (x,), dynamic_shapes=({1: rows},))
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert [t for t in targets if "getitem" not in t] == ["vision.seednorm_forward.default"]
    longer = torch.randn(2, 7, 32, device=place.device)
    assert torch.equal(program.module()(longer), layer(longer))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(place, dtype):
    layer = norm(place)
    x = torch.randn(4, 32, device=place.device).to(dtype).requires_grad_()
    plain = layer(x)
    with torch.autocast(place.device, dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == dtype and torch.equal(y, plain)
    assert torch.equal(
        *(torch.autograd.grad(t.float().sum(), x, retain_graph=True)[0] for t in (y, plain))
    )


def test_a_second_derivative_is_refused_with_the_way_out(place):
    x = torch.randn(4, 32, device=place.device, requires_grad=True)
    (dx,) = torch.autograd.grad(norm(place)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="backend: eager"):
        dx.sum().backward()


def kept(layer: nn.Module, x: torch.Tensor) -> int:
    """Bytes that a forward keeps for the backward, the layer's own parameters aside."""
    own = {p.data_ptr() for p in layer.parameters()}
    seen: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        if t.data_ptr() not in own:
            seen[t.data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x)
    return sum(seen.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_heads", [1, 16])
def test_keeps_no_more_than_layernorm_and_a_number_per_head(place, dtype, num_heads):
    rows, dim = 50, 64
    x = torch.randn(rows, dim, device=place.device).to(dtype).requires_grad_()
    ours = kept(norm(place, dim, num_heads, dtype=dtype), x)
    theirs = kept(nn.LayerNorm(dim, device=place.device, dtype=dtype), x)
    assert ours <= theirs + 4 * num_heads * rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dot_scale", ["dim", "head_dim"])
def test_dot_scale_is_served_with_its_gradients(place, dot_scale, dtype):
    layer, plain = (norm(place, dot_scale=dot_scale) for _ in range(2))
    plain.backend = "eager"
    for made in (layer, plain):
        made.beta.data *= 50  # so that a missing division would show
    x = torch.randn(20, 32, device=place.device).to(dtype).requires_grad_()
    # of the input only: one that depends on y would sum up where the two round differently
    upstream = torch.randn(20, 32, device=place.device).to(dtype)
    results = []
    for made in (layer, plain):
        y = made(x)
        leaves = (x, made.alpha, made.beta, made.gamma)
        results.append((y, *torch.autograd.grad(y, leaves, upstream)))
    assert is_fused(layer(x))
    loose = {"rtol": 2e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(*results, **loose)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("channels_first", [True, False])
def test_the_layer_agrees_with_its_plain_form(place, affine, channels_first):
    layer = norm(place, affine=affine, channels_first=channels_first)
    plain = norm(place, affine=affine, channels_first=channels_first)
    plain.backend = "eager"
    shape = (2, 32, 5, 3) if channels_first else (2, 5, 3, 32)
    x = torch.randn(shape, device=place.device)
    torch.testing.assert_close(layer(x), plain(x))
    assert layer(x).stride() == plain(x).stride()


def test_an_export_that_chooses_by_itself_holds_the_plain_formula(place):
    layer = create_norm("seednorm", 32)
    program = torch.export.export(layer, (torch.randn(2, 32),))
    assert not [n for n in program.graph.nodes if "vision" in str(n.target)]


def test_dropout_in_training_is_the_kernels(place):
    layer = norm(place, coefficient_dropout=0.5)
    x = torch.randn(8, 32, device=place.device)
    assert is_fused(layer.eval()(x)) and is_fused(layer.train()(x))
    assert not torch.equal(layer.eval()(x), layer.train()(x))


class Modulated(nn.Module):
    """What a block of a DiT does with its norm."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return self.layer.modulated(x, scale, shift)


def modulation(place, samples: int, tokens: int) -> list[torch.Tensor]:
    """x, scale and shift, of which the last two are parts of one tensor."""
    draws = torch.Generator().manual_seed(5)
    x, both = (
        torch.randn(samples, tokens, 32, generator=draws),
        torch.randn(samples, 1, 64, generator=draws),
    )
    return [x.to(place.device), *both.to(place.device).chunk(2, -1)]


def test_a_modulated_norm_exports_as_one_node(place):
    given = modulation(place, 2, 3)
    program = torch.export.export(Modulated(norm(place)), tuple(given))
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert [t for t in targets if "getitem" not in t] == ["vision.seednorm_forward.default"]


def test_a_modulated_norm_compiles_to_the_same_bits(place):
    module = Modulated(norm(place))
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for tokens in (3, 5):
        results = []
        for function in (module, compiled):
            leaves = [t.detach().requires_grad_() for t in modulation(place, 2, tokens)]
            y = function(*leaves)
            leaves += [module.layer.alpha, module.layer.gamma]
            results.append((y, *torch.autograd.grad(y.square().sum(), leaves)))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("modulated", [False, True])
def test_direct_calls_and_operators_give_the_same_bits_and_one_can_do_without_the_first(
    monkeypatch, modulated
):
    layer, results = norm(SimpleNamespace(backend="compiled", device="cpu"), affine=False), []
    for direct in (True, False):
        if not direct:
            monkeypatch.setattr(cpu, "direct_call", lambda: None)  # as where it cannot be built
        x = torch.randn(3, 50, 32, generator=torch.Generator().manual_seed(3))[:, ::2]
        leaves = (x.requires_grad_(), layer.alpha, layer.beta)
        if modulated:
            place = SimpleNamespace(device="cpu")
            both = [t.requires_grad_() for t in modulation(place, 3, 1)[1:]]
            leaves += (*both,)
        y = layer.modulated(x, *both) if modulated else layer(x)
        assert ("FusedNorm" in y.grad_fn.name()) == direct
        dy = torch.randn(25, 3, 32, generator=torch.Generator().manual_seed(4)).transpose(0, 1)
        results.append((y, *torch.autograd.grad(y, leaves, dy)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_direct_call_that_cannot_be_built_is_said(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("VISION_KERNEL_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    cpu_build.load_library.cache_clear()
    cpu.direct_call.cache_clear()
    try:
        assert cpu.direct_call() is None
    finally:
        cpu_build.load_library.cache_clear()
        cpu.direct_call.cache_clear()
    assert "take longer than they need to: " in caplog.text
    assert "cannot compile the kernel" in caplog.text
