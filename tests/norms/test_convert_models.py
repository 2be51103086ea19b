"""Swapping the norms of models from timm, torchvision, diffusers and of our own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vision.norms import Norm, convert_norms, register_norm


def vit_tiny() -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3)


def convnext() -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), num_classes=3
    )


def convnext_with_linear_mlps() -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), num_classes=3
    )


def swin() -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(1, 1),
        num_heads=(1, 2),
        num_classes=3,
    )


def torchvision_convnext() -> nn.Module:
    pytest.importorskip("torchvision")
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=3)


def torchvision_vit() -> nn.Module:
    pytest.importorskip("torchvision")
    from torchvision.models import VisionTransformer

    model = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3)
    nn.init.normal_(model.heads.head.weight)  # zero at first, which would hide what norms do
    return model


def torchvision_swin() -> nn.Module:
    pytest.importorskip("torchvision")
    from torchvision.models import SwinTransformer

    return SwinTransformer([4, 4], 8, [1, 1], [1, 2], [4, 4], num_classes=3)


# model, norms in it, of these channels-first
MODELS = [
    (vit_tiny, 25, 0),
    (convnext, 9, 9),
    (convnext_with_linear_mlps, 9, 5),
    (swin, 7, 0),
    (torchvision_convnext, 5, 3),
    (torchvision_vit, 5, 0),
    (torchvision_swin, 7, 0),
]


def norms_of(model: nn.Module) -> list[Norm]:
    return [m for m in model.modules() if isinstance(m, Norm)]


def check_that_it_trains(model: nn.Module, *args, **kwargs) -> None:
    out = model(*args, **kwargs)
    (out if isinstance(out, torch.Tensor) else out.sample).square().sum().backward()
    for norm in norms_of(model):
        for name, p in norm.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name


@pytest.mark.parametrize(
    ("build", "count", "first"), MODELS, ids=lambda v: getattr(v, "__name__", v)
)
@pytest.mark.parametrize("name", ["seednorm", "dyt"])
def test_all_norms_of_a_model_are_swapped_and_it_trains(build, count, first, name):
    model = build()
    conversion = convert_norms(model, name)
    assert len(conversion.swapped) == count and not conversion.skipped
    assert not [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    norms = norms_of(model)
    assert len(norms) == count and sum(norm.channels_first for norm in norms) == first
    check_that_it_trains(model, torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("build", [m[0] for m in MODELS], ids=lambda v: v.__name__)
def test_learned_scales_and_shifts_are_carried_over(build):
    model = build()
    for norm in (m for m in model.modules() if isinstance(m, nn.LayerNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    learned = {name: value.clone() for name, value in model.state_dict().items()}
    conversion = convert_norms(model, "seednorm")
    assert conversion.lost == tuple((name, "shift") for name, _, _ in conversion.swapped)
    for name, _, _ in conversion.swapped:
        assert torch.equal(model.get_submodule(name).gamma, learned[f"{name}.weight"])
    model = build()
    model.load_state_dict(learned)
    conversion = convert_norms(model, "derf")
    assert not conversion.lost
    for name, value in learned.items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.parametrize("build", [m[0] for m in MODELS], ids=lambda v: v.__name__)
def test_conversion_to_layernorm_with_the_same_eps_and_back_keeps_the_function(build):
    torch.manual_seed(0)
    model = build().eval()
    x = torch.randn(1, 3, 32, 32)
    eps = {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)}
    assert len(eps) == 1
    before = model(x)
    convert_norms(model, "seednorm")
    assert not torch.allclose(model(x), before, atol=1e-3)
    convert_norms(model, "layernorm", eps=eps.pop())
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["seednorm", "derf"])
def test_a_dit_of_diffusers_keeps_its_norms_without_affine(name):
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    nested = [n for n, m in model.named_modules() if isinstance(m, nn.LayerNorm)]
    conversion = convert_norms(model, name)
    assert [n for n, _, _ in conversion.swapped] == nested and "norm1.norm" in nested[0]
    assert not any(norm.affine for norm in norms_of(model))
    t, label = torch.tensor([1, 2]), torch.tensor([0, 1])
    check_that_it_trains(model, torch.randn(2, 4, 8, 8), timestep=t, class_labels=label)
    convert_norms(model, name, affine=True)
    assert all(norm.affine for norm in norms_of(model))


def test_rms_and_layer_norms_of_diffusers_in_one_model():
    pytest.importorskip("diffusers")
    from diffusers.models.normalization import AdaLayerNormZero, FP32LayerNorm, RMSNorm

    model = nn.ModuleList([RMSNorm(8, eps=1e-6), FP32LayerNorm(8), AdaLayerNormZero(8, 4)])
    nn.init.constant_(model[0].weight, 2.0)
    nn.init.constant_(model[1].bias, 3.0)
    conversion = convert_norms(model, "rmsnorm")
    assert conversion.lost == (("1", "shift"),)
    assert model[0].weight.tolist() == [2.0] * 8
    assert [s[:2] for s in conversion.swapped] == [
        ("0", "RMSNorm"),
        ("1", "FP32LayerNorm"),
        ("2.norm", "LayerNorm"),
    ]
    assert [norm.affine for norm in norms_of(model)] == [True, True, False]


def test_every_plain_norm_of_timm_is_known_with_its_axis():
    norm = pytest.importorskip("timm.layers.norm")
    kinds = ["LayerNorm", "LayerNormFp32", "RmsNorm", "RmsNormFp32", "SimpleNorm", "SimpleNormFp32"]
    kinds += ["LayerNorm2d", "LayerNorm2dFp32", "LayerNormExp2d", "RmsNorm2d", "RmsNorm2dFp32"]
    kinds += ["SimpleNorm2d", "SimpleNorm2dFp32"]
    model = nn.ModuleDict({kind: getattr(norm, kind)(8) for kind in kinds})
    assert len(convert_norms(model, "layernorm").swapped) == len(kinds)
    for kind in kinds:
        x = torch.randn(2, 8, 3, 3) if "2d" in kind else torch.randn(2, 3, 8)
        assert model[kind].channels_first == ("2d" in kind) and model[kind](x).shape == x.shape


def test_torchs_encoder_layer_does_not_run_its_fused_layernorm_afterwards():
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    convert_norms(model, "seednorm")
    x = torch.randn(2, 3, 8)
    for p in model.parameters():
        p.requires_grad_(False)
    model.eval()
    assert model(x).isfinite().all()


def test_a_users_plain_class_is_converted_into_a_model_and_out_again():
    @register_norm("scale_only")
    class ScaleOnly(nn.Module):
        def __init__(self, dim: int, start: float = 1.0) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.full((dim,), start))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x

    model = vit_tiny().bfloat16()
    assert (
        str(convert_norms(model, "scale_only", start=0.5)) == "25 norms -> ScaleOnly: 25 LayerNorm"
    )
    assert model.norm.scale.dtype == torch.bfloat16 and model.norm.scale[0] == 0.5
    model.float()(torch.randn(1, 3, 32, 32)).sum().backward()
    assert model.norm.scale.grad.abs().max() > 0
    assert str(convert_norms(model, "rmsnorm")) == "25 norms -> RMSNorm: 25 ScaleOnly"
    with pytest.raises(
        ValueError, match="stem.1 normalizes axis 1, which norm 'scale_only' cannot"
    ):
        convert_norms(convnext(), "scale_only")
