"""Which parameters the registry says take weight decay."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vision.norms import create_norm, decayed_parameters, norm_parameters, register_norm


def test_only_alpha_and_beta_of_seednorm_decay_among_the_built_in():
    names = ("layernorm", "rmsnorm", "dyt", "derf", "dyisru", "seednorm")
    model = nn.ModuleDict({name: create_norm(name, 4) for name in names})
    model["plain"] = create_norm("seednorm", 4, affine=False)
    assert decayed_parameters(model) == {
        f"{name}.{p}" for name in ("seednorm", "plain") for p in ("alpha", "beta")
    }


def test_norm_parameters_are_those_of_registered_norms_only():
    model = nn.Sequential(nn.Linear(4, 4), create_norm("dyt", 4), nn.LayerNorm(4))
    assert norm_parameters(model) == {"1.alpha", "1.weight", "1.bias"}
    assert decayed_parameters(model) == set()


def test_a_norm_alone_and_a_shared_norm_have_the_names_of_named_parameters():
    norm = create_norm("seednorm", 4)
    assert decayed_parameters(norm) == {"alpha", "beta"}
    model = nn.Sequential(norm, nn.Linear(4, 4), norm)
    assert norm_parameters(model) == {"0.alpha", "0.beta", "0.gamma"}


def test_a_users_class_may_declare_decay_also_for_nested_parameters():
    @register_norm("nested_decay")
    class Nested(nn.Module):
        decayed = ("mix.weight", "scale")

        def __init__(self, dim: int) -> None:
            super().__init__()
            self.mix = nn.Linear(dim, dim)
            self.scale = nn.Parameter(torch.ones(dim))

    model = nn.Sequential(Nested(4), nn.Linear(4, 4))
    assert decayed_parameters(model) == {"0.mix.weight", "0.scale"}
    assert norm_parameters(model) == {"0.mix.weight", "0.mix.bias", "0.scale"}


def test_a_decayed_name_that_does_not_exist_is_refused():
    @register_norm("misspelt")
    class Misspelt(nn.Module):
        decayed = frozenset({"sclae"})

        def __init__(self, dim: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(dim))

    with pytest.raises(
        ValueError, match="Misspelt.decayed names 'sclae'; its parameters are scale"
    ):
        decayed_parameters(nn.Sequential(Misspelt(4)))
