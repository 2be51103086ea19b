"""Parameter groups follow from the norms' own declarations; the schedule from the recipe."""

import math

import pytest
import timm
import torch

from vision.config.schema import OptimConfig
from vision.norms import convert_norms
from vision.tasks.optimizer import (
    create_optimizer,
    create_schedule,
    parameter_groups,
)


def vit(norm: str, **options: object) -> torch.nn.Module:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, depth=3, embed_dim=48, num_classes=10
    )
    convert_norms(model, norm, **options)
    return model


def decay_by_name(model: torch.nn.Module, layer_decay: float | None = None) -> dict[str, float]:
    groups = parameter_groups(model, 0.05, layer_decay)
    by_id = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(by_id) == len(list(model.parameters()))
    return {name: by_id[id(p)] for name, p in model.named_parameters()}


@pytest.mark.parametrize("layer_decay", [None, 0.65])
def test_seednorm_decays_alpha_and_beta_but_not_gamma(layer_decay: float | None) -> None:
    decay = decay_by_name(vit("seednorm", num_heads=4), layer_decay)
    for name in ("blocks.0.norm1", "blocks.2.norm2", "norm"):
        assert decay[f"{name}.alpha"] == 0.05
        assert decay[f"{name}.beta"] == 0.05
        assert decay[f"{name}.gamma"] == 0
    assert decay["blocks.0.attn.qkv.weight"] == 0.05
    assert decay["blocks.0.attn.qkv.bias"] == 0
    assert decay["pos_embed"] == decay["cls_token"] == 0


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "dyt", "derf", "dyisru"])
def test_other_norms_take_no_weight_decay(norm: str) -> None:
    decay = decay_by_name(vit(norm))
    assert {value for name, value in decay.items() if "norm" in name} == {0}


def test_layer_decay_scales_the_learning_rate_of_a_norm_with_its_block() -> None:
    model = vit("seednorm")
    groups = parameter_groups(model, 0.05, 0.5)
    scale = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    named = dict(model.named_parameters())
    for block in range(3):
        of_weight = scale[id(named[f"blocks.{block}.mlp.fc1.weight"])]
        assert scale[id(named[f"blocks.{block}.norm1.alpha"])] == of_weight
        assert of_weight == pytest.approx(0.5 ** (3 - block))


def test_schedule_is_linear_then_cosine_per_step() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_epochs=2, warmup_lr=0.0)
    optimizer = create_optimizer(vit("layernorm"), config, 256)
    schedule = create_schedule(optimizer, config, steps=50, steps_per_epoch=5)
    for step in range(51):
        schedule.step_update(step)
        done = (step - 10) / 40
        cosine = 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2
        expected = step / 10 if step < 10 else cosine
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, abs=1e-9)


def test_base_learning_rate_is_scaled_by_the_batch_and_lr_is_not() -> None:
    scaled = create_optimizer(vit("layernorm"), OptimConfig(lr=None, base_lr=1.5e-4), 4096)
    plain = create_optimizer(vit("layernorm"), OptimConfig(lr=1e-3), 4096)
    assert scaled.param_groups[0]["lr"] == pytest.approx(2.4e-3)
    assert plain.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("opt", ["adamw", "sgd", "lamb", "lars", "lion"])
def test_optimizers_are_timms_by_name(opt: str) -> None:
    model = vit("seednorm")
    optimizer = create_optimizer(model, OptimConfig(opt=opt, lr=0.01), 256)
    before = model.head.weight.detach().clone()
    model(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model.head.weight, before)


def test_unknown_optimizer_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"optim\.opt = 'adamww'.*did you mean 'adamw'"):
        create_optimizer(vit("layernorm"), OptimConfig(opt="adamww"), 256)


@pytest.mark.parametrize(
    ("opt", "given"),
    [
        ("adan", {"betas": (0.5, 0.6, 0.7)}),
        ("laprop", {"betas": (0.5, 0.6), "eps": 1e-3}),
        ("muon", {"momentum": 0.5, "eps": 1e-3}),
        ("rmsprop", {"momentum": 0.5, "eps": 1e-3}),
    ],
)
def test_what_the_optimizer_takes_reaches_it(opt: str, given: dict) -> None:
    optimizer = create_optimizer(vit("layernorm"), OptimConfig(opt=opt, **given), 256)
    for group in optimizer.param_groups:
        assert {key: group[key] for key in given} == given


def test_what_is_not_given_is_timms_default() -> None:
    for opt, betas, eps in (("adamw", (0.9, 0.999), 1e-8), ("laprop", (0.9, 0.999), 1e-15)):
        group = create_optimizer(vit("layernorm"), OptimConfig(opt=opt), 256).param_groups[0]
        assert (tuple(group["betas"]), group["eps"]) == (betas, eps)
