"""Which norms of a model are swapped, what they take over, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from vision.norms import Norm, convert_norms, create_norm, get_norm, list_norms, register_norm
from vision.norms.tokens import TokenLayout


def vit() -> nn.Module:
    """Three blocks: seven norms, `blocks.0.norm1` to `norm`."""
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=3, num_classes=3
    )


def test_conversion_reads_well_and_names_the_final_norm():
    conversion = convert_norms(vit(), "seednorm")
    assert str(conversion) == "7 norms -> SeeDNorm: 7 LayerNorm"
    assert conversion.swapped[0] == ("blocks.0.norm1", "LayerNorm", "SeeDNorm")
    assert conversion.swapped[-1][0] == "norm"
    with pytest.raises(dataclasses.FrozenInstanceError):
        conversion.swapped = ()


def test_norms_that_cannot_be_swapped_are_left_and_listed():
    act = pytest.importorskip("timm.layers.norm_act")
    model = nn.ModuleDict(
        {"wide": nn.LayerNorm((4, 8)), "act": act.LayerNormAct(8), "good": nn.RMSNorm(8)}
    )
    conversion = convert_norms(model, "dyt")
    assert [s[0] for s in conversion.swapped] == ["good"]
    assert conversion.skipped == (
        ("wide", "LayerNorm", "it runs over 2 axes, (4, 8)"),
        ("act", "LayerNormAct", "it contains an activation"),
    )
    assert "1 norm -> DyT: 1 RMSNorm; 2 left: wide (it runs over 2 axes" in str(conversion)
    with pytest.raises(ValueError, match="no norm of Sequential can be swapped: 0 .*2 axes"):
        convert_norms(nn.Sequential(nn.LayerNorm((4, 8))), "dyt")


def test_device_dtype_training_and_frozenness_are_taken_over():
    model = nn.Sequential(nn.LayerNorm(4, dtype=torch.bfloat16), nn.LayerNorm(4), nn.Linear(4, 4))
    model[0].eval()
    model[1].requires_grad_(False)
    model.append(nn.LayerNorm(4, device="meta"))
    convert_norms(model, "seednorm")
    assert {p.dtype for p in model[0].parameters()} == {torch.bfloat16}
    assert [model[i].training for i in (0, 1, 3)] == [False, True, True]
    assert [p.requires_grad for p in model[1].parameters()] == [False] * 3
    assert [p.requires_grad for p in model[0].parameters()] == [True] * 3
    assert all(p.is_meta for p in model[3].parameters())


def test_a_norm_without_parameters_follows_the_dtype_beside_it():
    block = nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.Linear(4, 4).half())
    model = nn.Sequential(nn.Linear(4, 4), block)
    convert_norms(model, "seednorm")
    assert {p.dtype for p in block[0].parameters()} == {torch.float16}


def test_given_dtype_wins():
    model = nn.Sequential(nn.LayerNorm(4).half())
    convert_norms(model, "dyt", dtype=torch.float32)
    assert model[0].weight.dtype == torch.float32


def test_a_shared_norm_stays_shared_and_counts_once():
    norm = nn.LayerNorm(4)
    model = nn.ModuleDict({"a": norm, "b": nn.Sequential(norm, nn.LayerNorm(4))})
    conversion = convert_norms(model, "rmsnorm")
    assert model["a"] is model["b"][0] and model["a"] is not model["b"][1]
    assert [s[0] for s in conversion.swapped] == ["a", "b.1"]


def test_a_shared_block_is_swapped_once():
    block = nn.Sequential(nn.LayerNorm(4))
    model = nn.Sequential(block, block)
    assert len(convert_norms(model, "rmsnorm").swapped) == 1
    assert type(model[1][0]).__name__ == "RMSNorm"


def test_patterns_choose_by_qualified_name():
    model = vit()
    swapped = convert_norms(
        model, "dyt", include="blocks.*", exclude=["*.norm2", "blocks.0.*"]
    ).swapped
    assert [s[0] for s in swapped] == [f"blocks.{i}.norm1" for i in (1, 2)]
    assert type(model.norm) is not type(model.blocks[1].norm1)


def test_conversion_can_be_repeated_through_all_norms():
    model = nn.Sequential(nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False))
    for name in list_norms():
        if getattr(get_norm(name), "contains_activation", False):
            continue  # it has no place here
        assert len(convert_norms(model, name, layout=TokenLayout((1, 1))).swapped) == 2
        assert [norm.affine for norm in model] == [True, False]
    assert model(torch.randn(2, 8)).shape == (2, 8)


def test_convnext_code_with_data_format_is_channels_first():
    class LayerNorm(nn.Module):  # as in hand-written ConvNeXt
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))
            self.data_format = "channels_first"
            self.normalized_shape = (8,)

    model = nn.Sequential(LayerNorm())
    convert_norms(model, "rmsnorm")
    assert model(torch.randn(2, 8, 3, 3)).shape == (2, 8, 3, 3) and model[0].channels_first


def test_nothing_to_swap_says_what_the_model_has():
    timm = pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"ResNet has no LayerNorm.*BatchNorm2d x \d+"):
        convert_norms(timm.create_model("resnet10t"), "dyt")
    with pytest.raises(ValueError, match="normalization layers: none"):
        convert_norms(nn.Sequential(nn.Linear(4, 4)), "dyt")


def test_patterns_that_match_nothing_say_how_many_norms_there_are():
    with pytest.raises(
        ValueError, match=r"include='block\.\*'.*none of the 7 norms.*'blocks.0.norm1' to 'norm'"
    ):
        convert_norms(vit(), "dyt", include="block.*")


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), create_norm("dyt", 4)], ids=["torch", "ours"])
def test_a_model_that_is_a_norm_is_pointed_to_create_norm(norm):
    with pytest.raises(ValueError, match=r"itself a norm.*create_norm\('rmsnorm', dim\)"):
        convert_norms(norm, "rmsnorm")


def test_refusals_leave_the_model_as_it_was():
    model = nn.Sequential(nn.LayerNorm(8), nn.LayerNorm(6))
    for name, options, message in [
        ("seednorm", {"num_heads": 4}, "1: num_heads=4 does not divide dim=6"),
        ("seednorm", {"heads": 4}, "no option 'heads'"),
        ("seednrm", {}, "did you mean 'seednorm'"),
        ("dyt", {"channels_first": True}, "follows the replaced norm"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert_norms(model, name, **options)
    assert [type(m) for m in model] == [nn.LayerNorm, nn.LayerNorm]


def with_its_activation() -> None:
    @register_norm("silu_norm")
    class SiLUNorm(Norm):
        contains_activation = True

        def normalize(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.silu(x) / x.std(-1, keepdim=True)


def test_a_norm_with_its_activation_is_put_where_both_are():
    timm = pytest.importorskip("timm")
    with_its_activation()
    model = timm.create_model(
        "vit_tiny_patch16_224", depth=2, img_size=32, scale_mlp_norm=True, num_classes=3
    )
    conversion = convert_norms(model, "silu_norm")
    assert [s[0] for s in conversion.swapped] == ["blocks.0.mlp.norm", "blocks.1.mlp.norm"]
    assert str(conversion) == (
        "2 norms -> SiLUNorm: 2 GELU and LayerNorm; "
        "5 left: blocks.0.norm1 and 4 more (no activation before it)"
    )
    mlp, x = model.blocks[0].mlp, torch.randn(2, 5, 192)
    hidden = mlp.fc1(x)
    expected = mlp.fc2(torch.nn.functional.silu(hidden) / hidden.std(-1, keepdim=True))
    torch.testing.assert_close(mlp(x), expected)
    # again, it takes its own place; another norm cannot, as the activation would be lost
    assert len(convert_norms(model, "silu_norm").swapped) == 2
    assert [s[2] for s in convert_norms(model, "dyt").skipped] == ["it contains an activation"] * 2
    with pytest.raises(ValueError, match="contains an activation, and none of the 7 norms of .*"):
        convert_norms(vit(), "silu_norm")


def test_a_norm_with_its_activation_takes_the_place_of_timms():
    norm_act = pytest.importorskip("timm.layers.norm_act")
    with_its_activation()
    model = nn.Sequential(norm_act.LayerNormAct(8), nn.LayerNorm(8))
    assert convert_norms(model, "silu_norm").swapped == (("0", "LayerNormAct", "SiLUNorm"),)
