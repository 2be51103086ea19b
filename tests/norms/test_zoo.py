"""Norms of the field: where torch or another norm computes the same, and what they refuse."""

import pytest
import torch
from torch import nn

from vision.norms import create_norm

DIM = 12


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_groupnorm_is_torchs_over_tokens_and_over_maps():
    x, theirs = tokens(2, DIM, 5, 3), nn.GroupNorm(4, DIM, dtype=torch.float64)
    nn.init.normal_(theirs.weight), nn.init.normal_(theirs.bias)
    maps = create_norm("groupnorm", DIM, num_groups=4, channels_first=True, dtype=torch.float64)
    last = create_norm("groupnorm", DIM, num_groups=4, dtype=torch.float64)
    for norm in (maps, last):
        norm.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(maps(x), theirs(x))
    torch.testing.assert_close(last(x.flatten(2).mT), theirs(x).flatten(2).mT)


@pytest.mark.parametrize(("dim", "groups"), [(192, 8), (12, 6), (49, 7), (13, 1)])
def test_groupnorm_takes_the_largest_divisor_up_to_8(dim, groups):
    assert create_norm("groupnorm", dim).num_groups == groups


@pytest.mark.parametrize("groups", [0, 5, 24, 1.0])
def test_groups_that_do_not_divide_are_refused_with_those_that_do(groups):
    with pytest.raises(ValueError, match=r"does not divide dim=12; try \[1, 2, 3, 4, 6, 12\]"):
        create_norm("groupnorm", DIM, num_groups=groups)


def test_scalenorm_starts_as_rmsnorm_and_gives_every_token_the_length_g():
    x, norm = tokens(2, 3, DIM), create_norm("scalenorm", DIM, dtype=torch.float64)
    torch.testing.assert_close(norm(x), create_norm("rmsnorm", DIM, eps=1e-30)(x))
    nn.init.constant_(norm.scale, 5.0)
    torch.testing.assert_close(norm(x).norm(dim=-1), torch.full((2, 3), 5.0, dtype=torch.float64))


def test_dyisru_starts_with_slope_1_and_saturates_at_the_root_of_dim():
    norm = create_norm("dyisru", DIM, dtype=torch.float64)
    x = torch.full((1, DIM), 1e-6, dtype=torch.float64)
    torch.testing.assert_close(norm(x), x)
    torch.testing.assert_close(norm(1e12 * x), torch.full_like(x, DIM**0.5))
