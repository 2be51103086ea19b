"""LayerNorm and RMSNorm are torch's, with our axis, precision and eps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vision.norms import create_norm

PAIRS = [("layernorm", nn.LayerNorm), ("rmsnorm", nn.RMSNorm)]


@pytest.mark.parametrize(("name", "torch_class"), PAIRS)
def test_state_dict_goes_both_ways_and_outputs_are_equal(name, torch_class):
    theirs, ours = torch_class(16, eps=1e-6), create_norm(name, 16)
    generator = torch.Generator().manual_seed(0)
    for p in theirs.parameters():
        nn.init.normal_(p, generator=generator)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 5, 16, generator=generator)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    back = torch_class(16, eps=1e-6)
    back.load_state_dict(ours.state_dict())
    assert torch.equal(back(x), theirs(x))


@pytest.mark.parametrize(("name", "torch_class"), PAIRS)
def test_without_affine_it_equals_torch_and_has_no_parameters(name, torch_class):
    ours = create_norm(name, 16, affine=False)
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    theirs = torch_class(16, eps=1e-6, elementwise_affine=False)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)
    assert list(ours.parameters()) == [] and ours.state_dict() == {}


@pytest.mark.parametrize("name", ["layernorm", "rmsnorm", "seednorm"])
@pytest.mark.parametrize("eps", [0, -1e-6, float("nan"), "1e-6"])
def test_eps_that_is_no_positive_number_is_refused(name, eps):
    with pytest.raises(ValueError, match="eps must be a number above 0|: expected a number"):
        create_norm(name, 8, eps=eps)
