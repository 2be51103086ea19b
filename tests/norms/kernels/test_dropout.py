"""SeeDNorm's dropout of coefficients in the C++ kernel."""

from __future__ import annotations

import pytest
import torch

from vision.norms.seednorm import SeeDNorm, seednorm


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_a_mask_acts_as_in_the_formula_with_its_gradients(num_heads, dtype, make):
    inputs = make("cpu", (40, 24), num_heads, dtype)
    mask, keep = torch.rand(40, num_heads, generator=torch.Generator().manual_seed(0)) < 0.7, 0.7
    kernel = SeeDNorm.kernel(
        inputs.x,
        *inputs.parameters,
        num_heads=num_heads,
        eps=1e-6,
        mask=mask,
        keep=keep,
        backend="compiled",
    )
    leaves = [t.detach().double().requires_grad_() for t in (inputs.x, *inputs.parameters)]
    x, alpha, beta, gamma = leaves
    heads = (num_heads, 24 // num_heads)
    coefficient = torch.tanh((x * beta).unflatten(-1, heads).sum(-1)) * mask / keep  # [40, H]
    scale = coefficient.repeat_interleave(heads[1], -1) * alpha + gamma
    plain = scale * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    got = [kernel, *torch.autograd.grad(kernel, [inputs.x, *inputs.parameters], inputs.dy)]
    wanted = [plain, *torch.autograd.grad(plain, leaves, inputs.dy.double())]
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7}[dtype]
    for a, b in zip(got, wanted, strict=True):
        error = (a.double() - b).detach().abs().max()
        assert error <= tolerance * b.detach().abs().max()


def test_the_mask_is_drawn_as_by_the_formula():
    norm = SeeDNorm(24, num_heads=4, coefficient_dropout=0.3, backend="compiled")
    norm.beta.data.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    x = torch.randn(30, 24, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(5)
    y = norm(x)
    torch.manual_seed(5)
    plain = seednorm(x, norm.alpha, norm.beta, norm.gamma, 4, 1e-6, 0.3, training=True)
    torch.testing.assert_close(y, plain)


def test_nothing_but_the_mask_is_kept_more():
    kept = []
    for rate in (0.0, 0.5):
        norm = SeeDNorm(64, num_heads=16, coefficient_dropout=rate, backend="compiled")
        own, seen = {p.data_ptr() for p in norm.parameters()}, {}

        def pack(t, own=own, seen=seen):
            if t.data_ptr() not in own:
                seen[t.data_ptr()] = t.numel() * t.element_size()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            norm(torch.randn(50, 64, requires_grad=True))
        kept.append(sum(seen.values()))
    assert kept[1] - kept[0] == 50 * 16


def test_dropout_compiles_without_a_graph_break():
    norm = SeeDNorm(32, num_heads=4, coefficient_dropout=0.5, backend="compiled")
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    x = torch.randn(8, 32, requires_grad=True)
    torch.manual_seed(0)
    y = norm(x)
    torch.manual_seed(0)
    assert torch.equal(compiled(x), y)
