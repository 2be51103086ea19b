"""What a file has that a model cannot take, or takes after a conversion."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from vision.checkpoints.init_from import initialize_from
from vision.config.schema import ModelConfig
from vision.norms import convert_norms


def vit(**options) -> torch.nn.Module:
    sizes = {"img_size": 16, "patch_size": 4, "depth": 2, "embed_dim": 48, "num_heads": 3}
    return timm.create_model("vit_tiny_patch16_224", **{"num_classes": 10, **sizes, **options})


def small(name: str, size: int, **options) -> torch.nn.Module:
    return timm.create_model(name, img_size=size, num_classes=10, **options)


@pytest.fixture
def saved(tmp_path: Path):
    def save(model: torch.nn.Module, prefix: str = "", config: dict | None = None, **how) -> str:
        state = {prefix + k: v for k, v in model.state_dict().items()}
        content = {"state_dict": state, "vision": {"config": config}} if config else state
        torch.save(content, tmp_path / "w.pth", **how)
        return str(tmp_path / "w.pth")

    return save


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({"reg_tokens": 4}, {"img_size": 8}, r"4 register tokens \(reg_token\), the model none"),
        ({}, {"reg_tokens": 4, "img_size": 8}, r"no register tokens \(reg_token\), the model 4"),
        (
            {"class_token": False, "global_pool": "avg"},
            {"global_pool": "avg", "img_size": 32},
            r"no class token \(cls_token\), the model 1",
        ),
        ({"depth": 3}, {}, r"no place for blocks\.2\..* and \d+ more; .*depth"),
        ({"init_values": 1e-5}, {}, r"no place for blocks\.0\.ls1\.gamma and 3 more"),
        ({"qk_norm": True}, {}, r"no place for blocks\.0\.attn\.k_norm\.bias"),
        ({"patch_size": 2, "dynamic_img_size": False, "embed_dim": 24}, {}, "another shape for"),
    ],
    ids=["registers", "no registers", "no class token", "deeper", "layer scale", "qk", "narrower"],
)
def test_what_differs_is_named(saved, theirs, ours, message):
    file = saved(vit(**theirs))
    with pytest.raises(ValueError, match=f"^model.init_from = .*: .*{message}"):
        initialize_from(vit(**ours), file)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."]
)
def test_prefixes_of_wrappers_go(saved, prefix):
    source, target = vit(), vit()
    report = initialize_from(target, saved(source, prefix))
    assert len(report.loaded) == len(source.state_dict()) and not report.unexpected
    assert torch.equal(source.head.weight, target.head.weight)


@pytest.mark.parametrize(
    ("name", "sizes", "options"),
    [
        ("swin_tiny_patch4_window7_224", (32, 64), {"window_size": 4, "embed_dim": 24}),
        ("eva02_tiny_patch14_224", (56, 28), {"depth": 1}),
        ("beit_base_patch16_224", (64, 32), {"depth": 1, "embed_dim": 48, "num_heads": 3}),
        ("convnext_atto", (None, None), {}),
    ],
)
def test_other_models_take_files_of_other_sizes_by_their_own_filter(saved, name, sizes, options):
    made = [
        small(name, size, **options) if size else timm.create_model(name, num_classes=10)
        for size in sizes
    ]
    source, target = made
    report = initialize_from(target, saved(source))
    assert set(report.loaded) >= {k for k, _ in target.named_parameters()}
    for name, parameter in target.named_parameters():
        if name in dict(source.named_parameters()) and name not in report.reshaped:
            assert torch.equal(parameter, dict(source.named_parameters())[name]), name


def test_a_size_that_no_filter_converts_is_named(saved):
    file = saved(small("cait_xxs24_224", 64, depth=1))
    with pytest.raises(ValueError, match="another shape for pos_embed .*data.img_size"):
        initialize_from(small("cait_xxs24_224", 32, depth=1), file)


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3), (3, 4)])
def test_the_first_convolution_is_adapted_to_other_channels_and_that_is_said(saved, theirs, ours):
    source, target = vit(in_chans=theirs), vit(in_chans=ours)
    report = initialize_from(target, saved(source))
    assert f"patch_embed.proj adapted from {theirs} to {ours} channels (data.in_chans)" in str(
        report
    )
    grey = torch.rand(2, 1, 16, 16)
    # an image of equal channels gives the same tokens
    tokens = [
        m.patch_embed(grey.expand(-1, n, -1, -1)) for m, n in ((source, theirs), (target, ours))
    ]
    if ours != 4:
        torch.testing.assert_close(*tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        ({"num_heads": 3}, {"num_heads": 6}, "has model.num_heads=3, the model 6"),
        ({"num_heads": None}, {"num_heads": 6}, "has model.num_heads=3, the model 6"),
    ],
)
def test_other_attention_heads_have_the_same_tensors_and_are_refused(saved, theirs, ours, message):
    record = {"model": {"name": "vit_tiny_patch16_224", **theirs}, "norm": {"name": "layernorm"}}
    file = saved(vit(), config=record)
    with pytest.raises(ValueError, match=message):
        initialize_from(vit(**ours), file, blocks=ModelConfig(name="vit_tiny_patch16_224", **ours))
    initialize_from(vit(), file, blocks=ModelConfig(name="vit_tiny_patch16_224"))


@pytest.mark.parametrize(
    ("theirs", "ours", "difference"),
    [
        ({}, {"num_heads": 16}, r"norm\.options\.num_heads=1, the model 16"),
        ({"dot_scale": "dim"}, {}, r"norm\.options\.dot_scale=dim, the model none"),
        ({"alpha_init": 0.5, "coefficient_dropout": 0.1}, {"backend": "eager"}, None),
    ],
)
def test_a_norm_with_other_options_is_another_norm(saved, theirs, ours, difference):
    source, target = vit(), vit()
    convert_norms(source, "seednorm", **theirs)
    convert_norms(target, "seednorm", **ours)
    record = {
        "model": {"name": "vit_tiny_patch16_224"},
        "norm": {"name": "seednorm", "options": theirs},
    }
    file = saved(source, config=record)
    given = {"norm": "seednorm", "norm_options": ours}
    if difference is None:
        assert initialize_from(target, file, **given).fresh_norms == 0
        return
    with pytest.raises(
        ValueError, match=f"another norm than the model: it was trained with {difference}"
    ):
        initialize_from(target, file, **given)
    assert initialize_from(target, file, strict=False, **given).fresh_norms == 5


@pytest.mark.parametrize(
    ("value", "name"), [(float("nan"), "blocks.1.mlp.fc1.bias"), (float("inf"), "cls_token")]
)
def test_weights_that_are_not_finite_are_refused_by_name(saved, value, name):
    source = vit()
    source.get_parameter(name).data.view(-1)[-1] = value
    target = vit()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ValueError, match=f"{name} holds numbers that are not finite"):
        initialize_from(target, saved(source))
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())


def test_torchs_format_of_before_1_6_is_read(saved):
    source, target = vit(), vit()
    initialize_from(target, saved(source, _use_new_zipfile_serialization=False))
    assert torch.equal(source.head.weight, target.head.weight)
