"""What a new norm takes over from the one that it replaces."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vision.norms import convert_norms, create_norm, get_norm, list_norms
from vision.norms.tokens import TokenLayout

DIM = 8


def learned(bias: bool = True) -> nn.LayerNorm:
    norm = nn.LayerNorm(DIM, eps=1e-6, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.normal_(generator=torch.Generator().manual_seed(0))
        norm.bias.normal_(generator=torch.Generator().manual_seed(1)).mul_(bias)
    return norm


@pytest.mark.parametrize("name", ["rmsnorm", "seednorm", "layernorm"])
def test_it_is_exact_where_the_formulas_coincide(name):
    """LayerNorm is RMSNorm for tokens whose mean over channels is 0."""
    x = torch.randn(5, 3, DIM, dtype=torch.float64)
    x -= x.mean(-1, keepdim=True)
    model = nn.Sequential(learned(bias=False))
    before = model(x)
    convert_norms(model, name, eps=1e-6)
    assert type(model[0]) is get_norm(name)
    torch.testing.assert_close(model(x), before, rtol=1e-12, atol=1e-12)


def test_scale_and_shift_go_to_the_parameters_that_the_class_names():
    old = learned()
    for name, scale in [("seednorm", "gamma"), ("dyt", "weight"), ("batchnorm", "weight")]:
        model = nn.Sequential(old)
        convert_norms(model, name)
        assert torch.equal(getattr(model[0], scale), old.weight)
        if name != "seednorm":
            assert torch.equal(model[0].bias, old.bias)


def test_what_has_no_place_is_said_with_a_count():
    model = nn.Sequential(learned(), nn.LayerNorm(DIM), learned(bias=False))
    conversion = convert_norms(model, "rmsnorm")
    assert conversion.lost == (("0", "shift"),)  # the others have nothing to lose
    text = "3 norms -> RMSNorm: 3 LayerNorm; lost, as RMSNorm has none: the learned shift of 1"
    assert str(conversion) == text
    plain = nn.Sequential(learned(), learned())
    lost = convert_norms(plain, "dyt", affine=False).lost
    assert [role for _, role in lost] == ["scale", "shift"] * 2


def test_it_can_be_left_out():
    model = nn.Sequential(learned())
    assert convert_norms(model, "dyt", carry_over=False).lost == ()
    assert model[0].weight.tolist() == [1] * DIM and model[0].bias.tolist() == [0] * DIM


@pytest.mark.parametrize("name", list_norms())
def test_an_untrained_norm_changes_no_start_value(name):
    if get_norm(name).contains_activation:
        pytest.skip("replaces an activation too")
    model = nn.Sequential(nn.LayerNorm(DIM))
    torch.manual_seed(0)  # some start at random
    fresh = create_norm(name, DIM)
    torch.manual_seed(0)
    assert convert_norms(model, name, layout=TokenLayout((1, 1))).lost == ()
    for key, value in fresh.state_dict().items():
        assert torch.equal(model[0].state_dict()[key], value), key


def test_the_dtype_and_the_meta_device_are_kept():
    model = nn.Sequential(learned().to(torch.bfloat16), nn.LayerNorm(DIM, device="meta"))
    convert_norms(model, "dyt")
    assert model[0].weight.dtype == torch.bfloat16
    assert model[1].weight.is_meta
