"""SeeDNorm's own properties: start, gradients, heads, bounds, invariances, dropout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vision.norms import convert_norms, create_norm
from vision.norms.seednorm import seednorm

seeds = st.integers(0, 2**31 - 1)
few = settings(max_examples=40, deadline=None, derandomize=True)


def draw(seed: int, tokens: int, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x `[tokens, dim]` and alpha, beta, gamma `[dim]` in float64."""
    generator = torch.Generator().manual_seed(seed)
    made = [
        torch.randn(n, generator=generator, dtype=torch.float64) for n in (tokens * dim, *[dim] * 3)
    ]
    return made[0].view(tokens, dim), made[1], made[2], made[3]


def unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize("num_heads", [1, 2, 8])
def test_starts_as_rmsnorm_whatever_alpha_is(num_heads):
    x = draw(0, 5, 16)[0].float()
    rms = create_norm("rmsnorm", 16)(x)
    for alpha_init in (1.0, -3.0):
        norm = create_norm("seednorm", 16, num_heads=num_heads, alpha_init=alpha_init)
        assert torch.equal(norm(x), rms)


def test_alpha_and_beta_wake_up_together():
    norm = create_norm("seednorm", 16)
    x = draw(0, 5, 16)[0].float()
    optimizer = torch.optim.SGD(norm.parameters(), lr=0.1)
    norm(x).square().mul(torch.arange(1, 17)).sum().backward()
    assert norm.alpha.grad.abs().max() == 0 and norm.beta.grad.abs().min() > 0
    optimizer.step()
    optimizer.zero_grad()
    norm(x).square().mul(torch.arange(1, 17)).sum().backward()
    assert norm.alpha.grad.abs().min() > 0


def test_alpha_init_zero_is_refused_because_nothing_would_train():
    with pytest.raises(ValueError, match="zero gradient forever; use 1"):
        create_norm("seednorm", 16, alpha_init=0)


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_gradients_are_the_derived_ones(num_heads):
    dim, eps = 8, 1e-6
    x, alpha, beta, gamma = (t.requires_grad_() for t in draw(3, 6, dim))
    beta.data *= 0.3
    g = draw(4, 6, dim)[0]
    seednorm(x, alpha, beta, gamma, num_heads, eps).backward(g)
    with torch.no_grad():
        r = (x.square().mean(-1, keepdim=True) + eps).rsqrt()
        u = x * r
        head = torch.arange(dim) // (dim // num_heads)  # [D], head of each channel
        same = (head[:, None] == head[None, :]).double()  # [D, D], sums over a head
        s = torch.tanh((x * beta) @ same)  # [L, D], constant within a head
        c = s * alpha + gamma
        ds = (g * u * alpha) @ same
        dx = r * (g * c - u * (g * c * u).mean(-1, keepdim=True)) + ds * (1 - s**2) * beta
        torch.testing.assert_close(gamma.grad, (g * u).sum(0), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(alpha.grad, (s * g * u).sum(0), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(beta.grad, (ds * (1 - s**2) * x).sum(0), rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(x.grad, dx, rtol=1e-11, atol=1e-12)


@few
@given(seeds, st.integers(1, 4), st.integers(1, 12))
def test_one_head_is_the_single_form(seed, tokens, dim):
    x, alpha, beta, gamma = draw(seed, tokens, dim)
    single = (torch.tanh((x * beta).sum(-1, keepdim=True)) * alpha + gamma) * unit(x)
    torch.testing.assert_close(seednorm(x, alpha, beta, gamma, 1), single, rtol=1e-12, atol=1e-12)


@few
@given(seeds, st.sampled_from([1, 2, 3, 6]), st.floats(1e-3, 1e6))
def test_coefficient_stays_within_gamma_plus_minus_alpha(seed, num_heads, size):
    x, alpha, beta, gamma = draw(seed, 3, 6)
    x = x * size
    c = seednorm(x, alpha, beta, gamma, num_heads) / unit(x)
    slack = 1e-9 * (1 + alpha.abs() + gamma.abs())
    assert (c <= gamma + alpha.abs() + slack).all() and (c >= gamma - alpha.abs() - slack).all()


@few
@given(seeds, st.sampled_from([1, 2, 3, 6]))
def test_flipping_x_and_beta_flips_only_the_sign(seed, num_heads):
    x, alpha, beta, gamma = draw(seed, 3, 6)
    y = seednorm(x, alpha, beta, gamma, num_heads)
    torch.testing.assert_close(seednorm(-x, alpha, -beta, gamma, num_heads), -y)
    torch.testing.assert_close(seednorm(x, -alpha, -beta, gamma, num_heads), y)


@few
@given(seeds, st.sampled_from([1, 2, 3, 6]), st.floats(0.1, 10))
def test_scaling_x_against_beta_changes_nothing(seed, num_heads, k):
    x, alpha, beta, gamma = draw(seed, 3, 6)
    y = seednorm(x, alpha, beta, gamma, num_heads, eps=1e-30)
    scaled = seednorm(k * x, alpha, beta / k, gamma, num_heads, eps=1e-30)
    torch.testing.assert_close(scaled, y, rtol=1e-9, atol=1e-9)


@few
@given(seeds)
def test_permuting_the_channels_permutes_the_output_of_the_single_form(seed):
    x, alpha, beta, gamma = draw(seed, 3, 6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    y = seednorm(x, alpha, beta, gamma)
    permuted = seednorm(x[:, order], alpha[order], beta[order], gamma[order])
    torch.testing.assert_close(permuted, y[:, order])


def test_size_of_x_matters_as_it_does_not_for_rmsnorm():
    x, alpha, beta, gamma = draw(0, 3, 6)
    y, doubled = (seednorm(k * x, alpha, beta, gamma) for k in (1, 2))
    assert (y - doubled).abs().max() > 0.05


def test_heads_use_only_their_own_part_of_x():
    x, alpha, beta, gamma = draw(0, 1, 8)
    other = x.clone()
    other[:, 4:] = x[:, 4:].flip(-1)  # the same RMS, another second head
    y, changed = (seednorm(v, alpha, beta, gamma, 2) for v in (x, other))
    torch.testing.assert_close(y[:, :4], changed[:, :4])
    assert (seednorm(other, alpha, beta, gamma, 1) - seednorm(x, alpha, beta, gamma, 1))[
        :, :4
    ].abs().max() > 1e-3


def test_dropout_acts_on_the_dynamic_part_in_training_only():
    norm = create_norm("seednorm", 8, coefficient_dropout=0.5).double()
    x, alpha, beta, _ = draw(0, 400, 8)
    norm.beta.data.copy_(beta)
    norm.alpha.data.copy_(alpha)
    torch.manual_seed(0)
    dynamic = norm(x) - unit(x)  # gamma is 1
    kept = norm.eval()(x) - unit(x)
    dropped = (dynamic.abs() < 1e-12).all(-1)
    assert 0.4 < dropped.double().mean() < 0.6
    torch.testing.assert_close(dynamic[~dropped], 2 * kept[~dropped])
    torch.testing.assert_close(norm(x), seednorm(x, alpha, beta, None))


def test_without_affine_gamma_is_one_and_the_dynamic_part_stays():
    norm = create_norm("seednorm", 8, affine=False)
    assert [name for name, _ in norm.named_parameters()] == ["alpha", "beta"]
    assert norm.gamma is None


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_parameters_have_one_shape_for_any_number_of_heads(num_heads):
    norm = create_norm("seednorm", 8, num_heads=num_heads)
    assert {name: tuple(p.shape) for name, p in norm.named_parameters()} == {
        "alpha": (8,),
        "beta": (8,),
        "gamma": (8,),
    }


@pytest.mark.parametrize("num_heads", [0, -1, 5, 16])
def test_heads_that_do_not_divide_dim_are_refused_with_those_that_do(num_heads):
    with pytest.raises(ValueError, match=r"does not divide dim=8; try \[1, 2, 4, 8\]"):
        create_norm("seednorm", 8, num_heads=num_heads)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "block"])
def test_dropout_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match="at least 0 and below 1, or 'drop_path'"):
        create_norm("seednorm", 8, coefficient_dropout=rate)


def test_the_former_name_of_coefficient_dropout_is_refused_with_the_new_one():
    with pytest.raises(ValueError, match="no option 'dropout'; did you mean 'coefficient_dropout'"):
        create_norm("seednorm", 8, dropout=0.1)


def test_dropout_draws_once_per_token_and_head_and_keeps_the_mean():
    norm = create_norm("seednorm", 8, num_heads=4, coefficient_dropout=0.25).double()
    x = draw(0, 1, 8)[0].expand(20_000, 8)  # the same token again and again
    norm.beta.data.fill_(0.5)
    torch.manual_seed(0)
    dropped = norm(x) - unit(x)  # gamma is 1
    whole = (norm.eval()(x) - unit(x))[0]
    gone = (dropped.abs() < 1e-12).unflatten(-1, (4, 2))
    assert torch.equal(gone[..., 0], gone[..., 1])  # one draw for both channels of a head
    heads = gone[..., 0].double()
    # four standard errors of 20,000 draws: 0.012
    assert (heads.mean(0) - 0.25).abs().max() < 0.013
    assert (heads.T.corrcoef() - torch.eye(4)).abs().max() < 0.03
    torch.testing.assert_close(dropped.mean(0), whole, rtol=0.02, atol=0)


def test_drop_path_is_the_rate_of_the_block_and_0_outside():
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=3, drop_path_rate=0.3, qk_norm=True
    )
    conversion = convert_norms(model, "seednorm", coefficient_dropout="drop_path")
    for i, block in enumerate(model.blocks):
        for norm in (block.norm1, block.norm2, block.attn.q_norm, block.attn.k_norm):
            assert norm.dropout_rate == pytest.approx(0.15 * i)
    assert model.norm.dropout_rate == 0
    assert str(conversion).endswith("SeeDNorm: 13 LayerNorm; coefficient dropout 0 to 0.3 by block")
    fixed = convert_norms(model, "seednorm", coefficient_dropout=0.2)
    assert str(fixed).endswith("13 SeeDNorm; coefficient dropout 0.2")
    assert "dropout" not in str(convert_norms(model, "seednorm"))
    plain = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2)
    said = str(convert_norms(plain, "seednorm", coefficient_dropout="drop_path"))
    assert said.endswith("coefficient dropout 0 everywhere: the blocks have no drop path")


def test_drop_path_counts_in_a_convnext_too():
    timm = pytest.importorskip("timm")
    model = timm.create_model("convnext_atto", drop_path_rate=0.1)
    convert_norms(model, "seednorm", coefficient_dropout="drop_path")
    blocks = [block for stage in model.stages for block in stage.blocks]
    rates = [block.norm.dropout_rate for block in blocks]
    assert rates[0] == 0 and rates[1:] == [block.drop_path.drop_prob for block in blocks[1:]]
    assert rates[-1] == pytest.approx(0.1) and model.stages[1].downsample[0].dropout_rate == 0


def test_drop_path_without_a_block_is_refused_when_it_would_train():
    norm = create_norm("seednorm", 8, coefficient_dropout="drop_path")
    x = torch.randn(3, 8)
    with pytest.raises(ValueError, match="told no block; let convert_norms place it"):
        norm(x)
    assert torch.equal(norm.eval()(x), create_norm("seednorm", 8)(x))


@pytest.mark.parametrize(("dot_scale", "divisor"), [("none", 1), ("dim", 24), ("head_dim", 6)])
def test_dot_scale_divides_the_product_within_the_tanh(dot_scale, divisor):
    x, alpha, beta, gamma = (t.requires_grad_() for t in draw(1, 5, 24))
    norm = create_norm("seednorm", 24, num_heads=4, dot_scale=dot_scale).double()
    norm.load_state_dict({"alpha": alpha, "beta": beta, "gamma": gamma})
    dots = (x * beta).view(5, 4, 6).sum(-1) / divisor
    expected = (torch.tanh(dots).repeat_interleave(6, dim=1) * alpha + gamma) * unit(x)
    y, g = norm(x), draw(2, 5, 24)[0]
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    got = torch.autograd.grad(y, (x, norm.alpha, norm.beta, norm.gamma), g)
    wanted = torch.autograd.grad(expected, (x, alpha, beta, gamma), g)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_dot_scale_is_one_of_three():
    with pytest.raises(ValueError, match="one of none, dim, head_dim, got 'heads'"):
        create_norm("seednorm", 8, dot_scale="heads")
