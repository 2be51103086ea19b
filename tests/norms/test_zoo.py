"""Norms of the field: where torch or another norm computes the same, and what they refuse."""

import pytest
import torch
from torch import nn

from vision.norms import convert_norms, create_norm, decayed_parameters

DIM = 12
ZOO = (
    "isru",
    "scalenorm",
    "bhyt",
    "groupnorm",
    "learnable_adaptive",
    "dynamic_layernorm",
    "asrnorm",
    "cluster",
    "evonorm_s0",
)


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


@pytest.mark.parametrize("groups", [0, 5, 24])
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


@pytest.mark.parametrize("groups", [1, 4])
def test_evonorm_s0_is_timms_on_maps_and_the_same_on_tokens(groups):
    layers = pytest.importorskip("timm.layers")
    x, theirs = tokens(2, DIM, 5, 3), layers.EvoNorm2dS0(DIM, groups).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    options = {"num_groups": groups, "dtype": torch.float64}
    maps = create_norm("evonorm_s0", DIM, channels_first=True, **options)
    last = create_norm("evonorm_s0", DIM, **options)
    for norm in (maps, last):
        norm.load_state_dict(theirs.state_dict())
    # timm takes the deviation in float32
    torch.testing.assert_close(maps(x), theirs(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(last(x.flatten(2).mT), maps(x).flatten(2).mT)


def test_dynamic_layernorm_starts_as_layernorm_and_its_summary_learns():
    x, norm = tokens(2, 5, DIM), create_norm("dynamic_layernorm", DIM, dtype=torch.float64)
    torch.testing.assert_close(norm(x), create_norm("layernorm", DIM)(x).double())
    for _ in range(2):  # the summary learns as soon as the maps of it are not 0
        optimizer = torch.optim.SGD(norm.parameters(), 0.1)
        optimizer.zero_grad()
        (norm(x) - tokens(2, 5, DIM) ** 2).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.abs().max() > 0 for parameter in norm.parameters())


def test_asrnorm_without_its_networks_is_instance_norm():
    x, norm = tokens(2, 5, DIM), create_norm("asrnorm", DIM, dtype=torch.float64)
    nn.init.constant_(norm.standardize.mix, -40.0), nn.init.constant_(norm.rescale.mix, -40.0)
    theirs = nn.InstanceNorm1d(DIM, eps=1e-6)
    torch.testing.assert_close(norm(x), theirs(x.mT).mT)


def test_cluster_with_one_cluster_standardizes_with_what_it_learned():
    norm = create_norm("cluster", DIM, num_clusters=1, eps=1e-9, dtype=torch.float64)
    nn.init.constant_(norm.mean, 3.0), nn.init.constant_(norm.variance, 50.0)
    torch.testing.assert_close(norm(x := tokens(4, DIM)), (x - 3) / 50**0.5)


@pytest.mark.parametrize(
    ("name", "option"), [("cluster", "num_clusters"), ("dynamic_layernorm", "summary_dim")]
)
def test_sizes_below_1_are_refused(name, option):
    with pytest.raises(ValueError, match=f"{option} must be an integer of at least 1"):
        create_norm(name, DIM, **{option: 0})
    with pytest.raises(ValueError, match=f"{option} = 2.0: expected a whole number"):
        create_norm(name, DIM, **{option: 2.0})


def test_matrices_of_networks_decay_and_nothing_else():
    decaying = {name: decayed_parameters(create_norm(name, DIM)) for name in ZOO}
    assert {name for name, found in decaying.items() if found} == {"asrnorm", "dynamic_layernorm"}
    for name in ("asrnorm", "dynamic_layernorm"):
        norm = create_norm(name, DIM)
        matrices = {key for key, parameter in norm.named_parameters() if parameter.ndim == 2}
        assert decaying[name] == matrices
        plain = decayed_parameters(create_norm(name, DIM, affine=False))
        assert plain == {key for key in matrices if "rescale" not in key}


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize("options", [{}, {"affine": False}], ids=str)
def test_a_vit_and_a_convnext_train_a_step_with_it(name, options):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    models = [
        timm.create_model(
            "vit_tiny_patch16_224", embed_dim=96, img_size=32, depth=2, scale_mlp_norm=True
        ),
        timm.create_model("convnext_atto", dims=(32,) * 4, depths=(1,) * 4, ls_init_value=1.0),
    ]
    if name == "evonorm_s0":
        models.pop()  # ConvNeXt has no norm behind an activation
    for model in models:
        convert_norms(model, name, **options)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-30)
        for _ in range(2):  # what starts at 0 keeps others from the first step
            optimizer.zero_grad()
            model(tokens(2, 3, 32, 32).float()).square().sum().backward()
            optimizer.step()
        trained = model.state_dict()
        assert all(value.isfinite().all() for value in trained.values())
        assert not [
            key for key in before if "norm" in key and torch.equal(before[key], trained[key])
        ]


@pytest.mark.parametrize("name", ZOO)
def test_pooled_input_is_normalized_like_images_of_one_token(name):
    norm = create_norm(name, DIM, dtype=torch.float64)
    x = tokens(3, DIM)
    assert torch.equal(norm(x), norm(x.unsqueeze(1)).squeeze(1)) and norm(x).isfinite().all()
