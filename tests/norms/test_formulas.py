"""Values, gradients and precision of every built-in norm against its formula in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from vision.norms import create_norm, register_norm

DIM = 24
HUGE = {
    torch.float16: 6e4,
    torch.bfloat16: 1e17,
    torch.float32: 1e17,
    torch.float64: 1e150,
}
DENORMAL = {
    torch.float16: 1e-6,
    torch.bfloat16: 1e-39,
    torch.float32: 1e-39,
    torch.float64: 1e-309,
}


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def upstream(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """A gradient of the output that has nothing to do with the input."""
    return randn(*shape, dtype=dtype, seed=9)


def spread(*shape: int) -> Tensor:
    """Random signs, sizes between 0.3 and 1."""
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return (0.3 + 0.7 * x) * randn(*shape).sign()


def run(
    norm: nn.Module, x: Tensor, g: Tensor, autocast: bool = False
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Output, input gradient, parameter gradients."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):  # forward only, as advised
        y = norm(x)
    y.backward(g)
    return y.detach(), x.grad, {name: p.grad for name, p in norm.named_parameters()}


def state(norm: nn.Module) -> dict[str, Tensor]:
    """Copies of parameters and buffers in float64, taken before a training step moves them."""
    return {name: value.detach().double().clone() for name, value in norm.state_dict().items()}


def expected(case, norm: nn.Module, x: Tensor, g: Tensor, before: dict[str, Tensor]):
    x = x.detach().double().requires_grad_()
    p = {name: before[name].requires_grad_() for name, _ in norm.named_parameters()}
    y = case.formula(x, before | p)
    y.backward(g.double())
    return y.detach(), x.grad, {name: value.grad for name, value in p.items()}


def check_against_formula(
    case, close, norm, x, g, scale_dx: float = 0.0, scale_dp: float = 0.0
) -> None:
    before = state(norm)
    y, dx, grads = run(norm, x, g)
    y_e, dx_e, grads_e = expected(case, norm, x, g, before)
    assert y.dtype == x.dtype and dx.dtype == x.dtype
    close(y, y_e)
    close(dx, dx_e, scale=scale_dx)
    assert grads.keys() == grads_e.keys()
    # a scalar's gradient is a sum in which large terms may cancel
    largest = max([float(value.abs().max()) for value in grads_e.values()], default=0.0)
    for name in grads:
        close(grads[name], grads_e[name], scale=max(scale_dp, min(largest, 1.0)))


def test_every_norm_has_a_formula_of_its_own_to_be_tested_against(without_formula):
    assert without_formula() == [], "add their formulas to FORMULAS in tests/norms/conftest.py"


def test_a_norm_that_nobody_gave_a_formula_is_found(without_formula):
    @register_norm("forgotten")
    class Forgotten(nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()

    assert without_formula() == ["forgotten"]


@pytest.mark.parametrize("shape", [(DIM,), (5, DIM), (2, 3, DIM), (2, 3, 4, DIM)], ids=str)
def test_values_and_gradients_match_the_formula_over_the_last_axis(case, close, dtype, shape):
    norm = case.make(dtype=dtype)
    check_against_formula(
        case, close, norm, randn(*shape, dtype=dtype), upstream(*shape, dtype=dtype)
    )


def test_buffers_move_as_the_formula_says_and_evaluation_uses_them(case, close, dtype):
    norm, x = case.make(dtype=dtype), randn(2, 3, DIM, dtype=dtype)
    for step in range(3):
        before = state(norm)
        norm(x + step)
        moved = case.moved((x + step).double(), before)
        assert moved.keys() >= dict(norm.named_buffers()).keys()
        for name, buffer in norm.named_buffers():
            if buffer.is_floating_point():
                close(buffer.to(x.dtype), moved[name])
            else:
                assert torch.equal(buffer, moved[name])
    before = state(norm.eval())
    close(norm(x).detach(), case.evaluated(x.double(), before))
    assert all(torch.equal(value, before[name]) for name, value in state(norm).items())


def test_gradcheck_of_input_and_all_parameters(exact_case):
    norm = exact_case.make(dtype=torch.float64)
    names = [name for name, _ in norm.named_parameters()]

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(norm, dict(zip(names, values, strict=True)), (x,))

    inputs = [randn(3, DIM), *(p.detach().clone() for p in norm.parameters())]
    assert torch.autograd.gradcheck(call, [value.requires_grad_() for value in inputs])


def test_channels_first_equals_channels_last_on_the_moved_axis(case, close, dtype):
    last = case.make(dtype=dtype)
    first = case.make(dtype=dtype, channels_first=True)
    x, g = randn(2, DIM, 3, 5, dtype=dtype), upstream(2, DIM, 3, 5, dtype=dtype)
    y, dx, grads = run(first, x, g)
    y_e, dx_e, grads_e = run(last, x.movedim(1, -1), g.movedim(1, -1))
    close(y, y_e.movedim(-1, 1))
    close(dx, dx_e.movedim(-1, 1))
    for name in grads:
        close(grads[name], grads_e[name].double())


def test_channels_first_gradcheck_on_four_axes(exact_case):
    norm = exact_case.make(dtype=torch.float64, channels_first=True)
    assert torch.autograd.gradcheck(norm, randn(1, DIM, 1, 2).requires_grad_())


def test_channels_last_memory_format_is_kept(case):
    x = randn(2, DIM, 3, 5).to(memory_format=torch.channels_last)
    y = case.make(dtype=torch.float64, channels_first=True)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_zero_rows_are_finite_and_match_the_formula(case, close, dtype):
    x = randn(4, DIM, dtype=dtype)
    x[1] = 0
    norm = case.make(dtype=dtype)
    g = upstream(4, DIM, dtype=dtype)
    check_against_formula(case, close, norm, x, g)
    check_against_formula(case, close, case.make(dtype=dtype), torch.zeros_like(x), g)


def test_huge_input_is_finite_and_matches_the_formula(case, close, dtype):
    norm, g = case.make(dtype=dtype), upstream(4, DIM, dtype=dtype)
    x = (spread(4, DIM) * HUGE[dtype]).to(dtype)
    # dx is of size g/|x|, a scalar's gradient of size g; those of DyISRU and ISRU are differences
    # of two such terms, much smaller than either
    check_against_formula(case, close, norm, x, g, 1 / HUGE[dtype], 1.0)


def test_denormal_input_is_finite_and_matches_the_formula(case, close, dtype):
    x = (spread(4, DIM) * DENORMAL[dtype]).to(dtype)
    assert (x != 0).all() and x.abs().max() < torch.finfo(dtype).smallest_normal
    check_against_formula(case, close, case.make(dtype=dtype), x, upstream(4, DIM, dtype=dtype))


def test_non_contiguous_input_gives_what_a_contiguous_one_does(case, close, dtype):
    norm = case.make(dtype=dtype)
    x = randn(6, DIM * 2, dtype=dtype)[::2, ::2]
    assert not x.is_contiguous()
    check_against_formula(case, close, norm, x, upstream(3, DIM, dtype=dtype))


@pytest.mark.parametrize("x_dtype", [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(case, x_dtype):
    x, g = randn(4, DIM, dtype=x_dtype), upstream(4, DIM, dtype=x_dtype)
    plain = run(case.make(), x, g)
    cast = run(case.make(), x, g, autocast=True)
    assert torch.equal(plain[0], cast[0]) and torch.equal(plain[1], cast[1])
    assert all(torch.equal(plain[2][name], cast[2][name]) for name in plain[2])
    assert cast[0].dtype == x_dtype


@pytest.mark.parametrize("p_dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_parameters_may_have_another_dtype_than_the_input(case, close, dtype, p_dtype):
    norm = case.make(dtype=p_dtype)
    x, g = randn(4, DIM, dtype=dtype), upstream(4, DIM, dtype=dtype)
    before = state(norm)
    y, dx, grads = run(norm, x, g)
    y_e, dx_e, grads_e = expected(case, norm, x, g, before)
    close(y, y_e)
    close(dx, dx_e)
    for name, grad in grads.items():
        assert grad.dtype == p_dtype
        low = grad.to(max(p_dtype, torch.promote_types(dtype, torch.float32), key=coarseness))
        close(low, grads_e[name])


def coarseness(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


def test_compiles_as_one_graph(case, close):
    torch.compiler.reset()
    norm = case.make()
    # a backward pass that changes buffers cannot be part of a graph
    compiled = torch.compile(norm, backend="aot_eager", fullgraph=type(norm).exact_gradient)
    x, g = randn(4, DIM, dtype=torch.float32), upstream(4, DIM, dtype=torch.float32)
    before = state(norm)
    y, dx, grads = run(compiled, x, g)
    y_e, dx_e, grads_e = expected(case, norm, x, g, before)
    close(y, y_e)
    close(dx, dx_e)
    assert len(grads) == len(grads_e)


def test_deepcopy_is_equal_and_independent(case):
    norm, x = case.make(), randn(2, DIM, dtype=torch.float32)
    twin = copy.deepcopy(norm)
    assert torch.equal(norm(x), twin(x))
    for ours, theirs in zip(norm.parameters(), twin.parameters(), strict=True):
        assert ours.data_ptr() != theirs.data_ptr()


def test_made_on_meta_then_reset_equals_made_on_cpu(case):
    norm = case.make(device="meta")
    assert all(p.is_meta for p in norm.parameters())
    norm = norm.to_empty(device="cpu")
    torch.manual_seed(0)
    norm.reset_parameters()
    torch.manual_seed(0)  # matrices start at random
    fresh = type(norm)(DIM, **case.options)
    assert norm.state_dict().keys() == fresh.state_dict().keys()
    assert all(torch.equal(v, fresh.state_dict()[k]) for k, v in norm.state_dict().items())
    assert len([*fresh.parameters(), *fresh.buffers()]) == len(fresh.state_dict())


@pytest.mark.parametrize("shape", [(3, DIM + 1), (DIM, 1), ()], ids=str)
def test_wrong_channel_count_is_refused_with_both_sizes(case, shape):
    with pytest.raises(ValueError, match=rf"dim {DIM}.*shape \({', '.join(map(str, shape))}"):
        case.make()(torch.zeros(shape))


def test_channels_first_refuses_channels_on_the_last_axis(case):
    with pytest.raises(ValueError, match="axis 1.*channels_first=True"):
        case.make(channels_first=True)(torch.zeros(2, 3, 4, DIM))


def test_printed_form_shows_options_that_differ_from_the_default(case):
    text = repr(case.make(channels_first=True))
    assert str(DIM) in text and "channels_first=True" in text
    assert ("affine=False" in text) == (case.options.get("affine") is False)
    assert ("num_heads=4" in text) == ("num_heads" in case.options)


@pytest.mark.parametrize("name", ["dyt", "derf", "isru", "dyisru"])
def test_elementwise_norms_take_the_largest_numbers_there_are(name, dtype):
    norm = create_norm(name, 1, dtype=dtype)
    largest = torch.finfo(dtype).max
    y, dx, grads = run(
        norm, torch.tensor([[largest], [-largest]], dtype=dtype), torch.ones(2, 1, dtype=dtype)
    )
    assert y.tolist() == [[1.0], [-1.0]] and dx.tolist() == [[0.0], [0.0]]
    assert all(grad.isfinite().all() for grad in grads.values())
