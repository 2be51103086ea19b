"""Scale and shift in the same pass as the norm, as in the blocks of a DiT."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vision.norms import create_norm
from vision.norms.kernels.ops import KERNELS

BATCH, TOKENS, DIM = 5, 9, 48


def made(name: str, **options):
    norm = create_norm(name, DIM, **options)
    draws = torch.Generator().manual_seed(3)
    for parameter in norm.parameters():
        noise = torch.randn(parameter.shape, generator=draws)
        parameter.data += 0.2 * noise
    return norm


def inputs(dtype: torch.dtype, tokens: int = TOKENS, batch: int = BATCH) -> list[Tensor]:
    """x, scale and shift as a block has them: parts of one tensor; and a gradient."""
    draws = torch.Generator().manual_seed(4)
    x = torch.randn(batch, tokens, DIM, generator=draws).to(dtype).requires_grad_()
    both = torch.randn(batch, 2 * DIM, generator=draws).to(dtype).requires_grad_()
    return [x, both, torch.randn(batch, tokens, DIM, generator=draws).to(dtype)]


def results(norm, x: Tensor, both: Tensor, dy: Tensor, together: bool) -> list[Tensor]:
    scale, shift = both.unsqueeze(1).chunk(2, dim=-1)
    if together:
        y = norm.modulated(x, scale, shift)
        assert "FusedNorm" in y.grad_fn.name()
    else:
        y = norm(x) * (1 + scale) + shift
    return [y, *torch.autograd.grad(y, [x, both, *norm.parameters()], dy)]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_same_with_its_gradients_as_one_after_the_other(name, affine):
    for dtype, tolerance in {
        torch.float64: 1e-12,
        torch.float32: 2e-5,
        torch.bfloat16: 2e-2,
        torch.float16: 3e-3,
    }.items():
        norm = made(name, affine=affine, backend="compiled")
        norm = norm.double() if dtype == torch.float64 else norm
        given = [t.detach().to(dtype) for t in inputs(torch.float64)]
        plain = [t.double().detach() for t in given]  # what rounding left
        for tensors in (given, plain):
            tensors[0].requires_grad_(), tensors[1].requires_grad_()
        exact = results(made(name, affine=affine, backend="eager").double(), *plain, False)
        for a, b in zip(results(norm, *given, True), exact, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(
                a.double(),
                b,
                rtol=tolerance,
                atol=tolerance * max(1.0, float(b.detach().abs().max())),
            )


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["compiled", "eager"])
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_scale_and_shift_of_autocast_are_exact_in_float32(name, backend, half):
    norm = made(name, backend=backend)
    x, both, dy = inputs(torch.float32)
    both = both.detach().to(half).requires_grad_()
    scale, shift = both.unsqueeze(1).chunk(2, dim=-1)
    y = norm.modulated(x, scale, shift)
    assert ("FusedNorm" in y.grad_fn.name()) == (backend == "compiled")
    found = [y, *torch.autograd.grad(y, [x, both, *norm.parameters()], dy)]
    plain = [t.detach().double().requires_grad_() for t in (x, both)]
    exact = results(made(name, backend="eager").double(), *plain, dy.double(), False)
    assert found[0].dtype is torch.float32 and found[2].dtype is half
    for i, (a, b) in enumerate(zip(found, exact, strict=True)):
        tolerance = torch.finfo(half).eps if i == 2 else 2e-5  # both's gradient is in half
        atol = tolerance * max(1.0, float(b.detach().abs().max()))
        torch.testing.assert_close(a.double(), b, rtol=tolerance, atol=atol)


def test_scale_and_shift_wider_than_x_give_their_dtype():
    norm = made("rmsnorm", backend="compiled")
    x, both, dy = inputs(torch.float32)
    y = norm.modulated(x.bfloat16(), *both.unsqueeze(1).chunk(2, dim=-1))
    assert y.dtype is torch.float32
    assert y.shape == dy.shape


def test_any_number_of_samples_and_threads_gives_the_same_bits():
    norm, found, threads = made("seednorm", num_heads=4, backend="compiled"), [], None
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(results(norm, *inputs(torch.float32, 70, 150), True))
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_a_second_derivative_is_refused():
    x, both, _ = inputs(torch.float32)
    y = made("dyt", backend="compiled").modulated(x, *both.unsqueeze(1).chunk(2, dim=-1))
    (d_both,) = torch.autograd.grad(y.square().sum(), both, create_graph=True)
    with pytest.raises(RuntimeError, match="backend: eager"):
        d_both.sum().backward()


def test_hooks_see_the_norms_own_result():
    norm, seen = made("rmsnorm", backend="compiled"), []
    x, both, dy = inputs(torch.float32)
    together = results(norm, x, both, dy, True)[0]
    norm.register_forward_hook(lambda module, given, result: seen.append(result))
    apart = norm.modulated(x, *both.unsqueeze(1).chunk(2, dim=-1))
    assert torch.equal(seen[0], norm(x))
    torch.testing.assert_close(apart, together)


def test_hooks_of_the_backward_are_called():
    norm, seen = made("dyt", backend="compiled"), []
    norm.register_full_backward_hook(lambda module, dx, dy: seen.append(dy[0].shape))
    x, both, dy = inputs(torch.float32)
    norm.modulated(x, *both.unsqueeze(1).chunk(2, dim=-1)).backward(dy)
    assert seen == [x.shape]


def test_a_batch_of_none():
    x, both, dy = inputs(torch.float32, batch=0)
    norm = made("seednorm", backend="compiled")
    for result in results(norm, x, both, dy, True)[:3]:
        assert result.numel() == 0


def test_the_same_mask_of_dropout_in_both_passes():
    found = []
    for together in (True, False):
        norm = made("seednorm", num_heads=4, coefficient_dropout=0.5, backend="compiled").double()
        torch.manual_seed(7)
        found.append(results(norm, *inputs(torch.float64), together))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
