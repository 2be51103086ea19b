"""Every norm with a C++ kernel against its plain formula; test_formula.py says more of SeeDNorm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vision.norms import create_norm, get_norm, list_norms
from vision.norms.fused import FusedNorm

# largest error, relative to the largest value expected
TOLERANCES = {
    torch.float64: 1e-12,
    torch.float32: 1e-5,
    torch.bfloat16: 2**-8,
    torch.float16: 2**-10,
}
NAMES = [
    name
    for name in list_norms()
    if issubclass(get_norm(name), FusedNorm) and get_norm(name).kernel is not None
]
pytestmark = pytest.mark.parametrize("name", NAMES)


def layer(name: str, dim: int, backend: str = "compiled", **options) -> FusedNorm:
    options = {"num_heads": 4} | options if name == "seednorm" and dim % 4 == 0 else options
    norm = create_norm(name, dim, backend=backend, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in norm.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise.to(parameter.dtype))
    return norm


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def results(norm: FusedNorm, x: Tensor, g: Tensor) -> list[Tensor]:
    """Output, input gradient, parameter gradients."""
    x = x.detach().requires_grad_()
    y = norm(x)
    return [y.detach(), *torch.autograd.grad(y, [x, *norm.parameters()], g)]


def check(name: str, x: Tensor, g: Tensor, flat: bool = False, **options) -> None:
    """The kernel on x against the plain formula on the same numbers in float64.

    `flat`: x is where slopes such as 1 - tanh² are differences that nearly vanish.
    """
    # gradients have the dtype of the parameters
    kernel = layer(name, x.shape[-1], **options).to(torch.promote_types(x.dtype, torch.float32))
    plain = layer(name, x.shape[-1], "eager", **options).double()
    got, wanted = results(kernel, x, g), results(plain, x.double(), g.double())
    # a scalar's gradient is a sum in which large terms may cancel
    largest = max([float(t.abs().max()) for t in wanted[2:]], default=0.0)
    for position, (a, b) in enumerate(zip(got, wanted, strict=True)):
        # gradients of parameters are sums in float32 whatever the dtype of x
        kind = torch.promote_types(x.dtype, torch.float32) if position > 1 else x.dtype
        scale = largest if position > 1 else float(b.abs().max()) if b.numel() else 0.0
        if name == "layernorm" and x.shape[-1] == 2 and position == 1:
            scale = max(scale, float(g.abs().max()))  # ±1 of any two numbers: gradients cancel
        if flat and position == 1:
            scale = max(scale, 0.01 * float(g.abs().max()))
        if flat and position == 3 and name == "seednorm":  # of beta: the slope times x
            scale = max(scale, 0.01 * float(g.abs().max()) * float(x.abs().max()))
        assert a.shape == b.shape
        error = float((a.double() - b).abs().max()) if b.numel() else 0.0
        assert error <= TOLERANCES[kind] * scale + torch.finfo(kind).tiny, (position, error, scale)


def test_the_name_of_the_gradient_says_that_the_kernel_computed(name):
    y = layer(name, 24)(randn(3, 24).requires_grad_())
    assert "FusedNorm" in y.grad_fn.name()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    "shape", [(4, 2), (1, 7), (3, 5, 31), (2, 100), (17, 24), (33, 192), (5, 1153)], ids=str
)
def test_shapes_and_dtypes(name, shape, dtype):
    check(name, randn(*shape, dtype=dtype), randn(*shape, dtype=dtype, seed=2))


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 1100])
@pytest.mark.parametrize("affine", [True, False])
def test_numbers_of_rows(name, rows, affine):
    check(name, randn(rows, 40), randn(rows, 40, seed=2), affine=affine)


def test_strides(name):
    x, g = randn(6, 7, 36), randn(6, 7, 36, seed=2)
    check(name, randn(6, 7, 40)[..., 1:37], g)
    check(name, x, g.transpose(0, 1).contiguous().transpose(0, 1))
    check(name, randn(6, 36, 7).mT, g)
    check(name, x.expand(6, 7, 36)[::2], g[:1].expand(3, 7, 36))
    check(name, randn(1, 1, 36).expand(6, 7, 36), torch.ones(()).expand(6, 7, 36))


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30, 1e-4, 1e4, 1e15])
def test_sizes_of_x(name, size):
    options = {"alpha_init": 1e-3} if name == "seednorm" else {}
    flat = size >= 1e4 and name != "rmsnorm"
    check(name, randn(5, 32) * size, randn(5, 32, seed=2), flat, **options)


def test_not_a_number_stays_in_its_row(name):
    x = randn(3, 32)
    x[1, 5] = torch.nan
    y, dx, *_ = results(layer(name, 32), x, randn(3, 32, seed=2))
    assert y[1].isnan().any() and dx[1].isnan().any()
    assert y[[0, 2]].isfinite().all() and dx[[0, 2]].isfinite().all()


def test_gradcheck_in_float64(name):
    norm = layer(name, 8).double()
    inputs = [randn(3, 8, dtype=torch.float64), *norm.parameters()]
    assert torch.autograd.gradcheck(
        lambda x, *_: norm(x), [t.detach().requires_grad_() for t in inputs[:1]] + inputs[1:]
    )


def test_parameters_in_bfloat16_get_gradients_in_it(name):
    norm = layer(name, 32).bfloat16()
    reference = layer(name, 32, "eager").bfloat16().double()
    x, g = randn(9, 32), randn(9, 32, seed=2)
    got, wanted = results(norm, x, g), results(reference, x.double(), g.double())
    assert [t.dtype for t in got] == [torch.float32] * 2 + [torch.bfloat16] * (len(got) - 2)
    largest = max(float(t.abs().max()) for t in wanted[2:])
    for a, b in zip(got[2:], wanted[2:], strict=True):
        assert float((a.double() - b).abs().max()) <= 2**-8 * largest


def test_bits_do_not_depend_on_the_number_of_threads(name):
    found, before = [], torch.get_num_threads()
    x, g = randn(3000, 40), randn(3000, 40, seed=2)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(results(layer(name, 40), x, g))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_compiles_without_a_graph_break_to_the_same_bits(name):
    torch.compiler.reset()  # all norms share one `forward`
    norm = layer(name, 32)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (3, 5):
        x = randn(rows, 32).requires_grad_()
        found = []
        for function in (norm, compiled):
            y = function(x)
            upstream = randn(rows, 32, seed=2)
            found.append([y, *torch.autograd.grad(y, [x, *norm.parameters()], upstream)])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_exports_as_one_node_for_any_number_of_rows(name):
    norm = layer(name, 32)
    shapes = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(norm, (randn(3, 32),), dynamic_shapes=shapes)
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    assert [t for t in targets if "getitem" not in t] == [f"vision.{name}_forward.default"]
    assert torch.equal(program.module()(randn(7, 32)), norm(randn(7, 32)))


def test_a_jit_trace_holds_the_operator(name):
    norm = layer(name, 32).eval()
    traced = torch.jit.trace(norm, (randn(3, 32),), check_trace=False)
    assert torch.equal(traced(randn(5, 32, seed=4)), norm(randn(5, 32, seed=4)))


def test_opcheck_passes(name):
    norm = layer(name, 16)
    kernel, x = norm.kernel, randn(2, 3, 16)
    parameters = [getattr(norm, p) for p in kernel.parameters]
    heads = getattr(norm, "num_heads", 1)
    settings = (None, None, None, heads, 1e-6, 1.0, "compiled")
    torch.library.opcheck(kernel.forward, (x.requires_grad_(), *parameters, *settings))
    out = kernel.forward(x, *parameters, *settings)
    kept = [t.detach() for t in out[1:]] if kernel.kept_count else []
    given = [t.detach() for t in (torch.ones_like(x), x, *parameters)]
    torch.library.opcheck(
        kernel.backward, (*given, None, None, None, *kept, heads, 1e-6, 1.0, "compiled")
    )


def test_a_second_derivative_is_refused_with_the_way_out(name):
    x = randn(4, 32).requires_grad_()
    (dx,) = torch.autograd.grad(layer(name, 32)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="has no second derivative; for one set backend: eager"):
        dx.sum().backward()


def test_keeps_no_more_than_x_and_numbers_per_row(name):
    norm, x = layer(name, 64), randn(50, 64).bfloat16().requires_grad_()
    own, seen = {p.data_ptr() for p in norm.parameters()}, {}

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            seen[t.data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        norm(x)
    per_row = {"layernorm": 4 + 4, "rmsnorm": 4, "seednorm": 4 + 4 * 4}.get(name, 0)
    assert sum(seen.values()) == 50 * (64 * 2 + per_row)


def test_a_class_that_changes_the_formula_does_not_keep_the_kernel(name):
    parent = get_norm(name)

    class Changed(parent):
        def normalize(self, x: Tensor) -> Tensor:
            return 2 * super().normalize(x)

    x = randn(4, 32)
    assert Changed.kernel is None
    torch.testing.assert_close(Changed(32)(x), 2 * create_norm(name, 32, backend="eager")(x))
