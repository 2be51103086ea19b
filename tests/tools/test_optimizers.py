"""What a configuration may say of the optimizer, through the command line."""

from pathlib import Path

import pytest
import torch

CONFIG = "configs/vit_ti.yaml"


def test_the_shown_config_has_one_learning_rate(forked) -> None:
    shown = forked(
        "tools/train.py", CONFIG, "optim.base_lr=1e-3", "optim.lr=0.9", "--print-config"
    ).stdout
    assert "lr: 0.9" in shown and "base_lr: null" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optim.opt=adan", "optim.betas=[0.5,0.6]"], "optim.betas = [0.5, 0.6]: adan takes 3"),
        (["optim.opt=lion", "optim.eps=1e-6"], "optim.eps = 1e-06: lion takes no eps, but betas"),
        (["optim.opt=sgd", "optim.betas=[0.9,0.95]"], "sgd takes no betas, but momentum"),
        (["optim.momentum=0.5"], "optim.momentum = 0.5: adamw takes no momentum, but betas, eps"),
        (["optim.opt=adahessian"], "optim.opt = 'adahessian': needs second derivatives"),
        (["optim.opt=bnbadam"], "optim.opt = 'bnbadam': cannot be made here"),
        (["optim.opt=fusedlamb"], "optim.opt = 'fusedlamb': cannot be made here"),
    ],
)
def test_what_an_optimizer_does_not_take_is_refused_before_the_run(
    forked, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    result = forked("tools/train.py", CONFIG, *arguments, f"output_dir={tmp_path}", code=2)
    assert expected in result.stderr and "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("opt", "given"),
    [
        ("adan", {"betas": [0.5, 0.6, 0.7]}),
        ("laprop", {"betas": [0.5, 0.6], "eps": 1e-3}),
        ("rmsprop", {"momentum": 0.5, "eps": 1e-3}),
    ],
)
def test_what_an_optimizer_takes_is_what_it_trains_with(
    opt: str, given: dict, forked, small: list[str], tmp_path: Path
) -> None:
    settings = [f"optim.{key}={value}" for key, value in given.items()]
    length = ["trainer.epochs=null", "trainer.max_steps=1", "optim.warmup_epochs=0"]
    where = [f"output_dir={tmp_path}", "name=run", f"optim.opt={opt}", "norm.name=layernorm"]
    forked("tools/train.py", CONFIG, *small, *length, *where, *settings)
    content = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    groups = content["optimizer_states"][0]["param_groups"]
    assert groups
    for group in groups:
        assert {k: list(group[k]) if k == "betas" else group[k] for k in given} == given


@pytest.mark.parametrize(
    ("model", "heads", "code"),
    [
        (["model.name=vit_base_patch32_plus_256", "model.patch_size=32"], 7, "896"),
        (["model.name=vit_base_patch16_plus_240", "model.patch_size=16"], 5, "dim=896"),
    ],
)
def test_heads_are_asked_of_the_model(
    forked, tmp_path: Path, model: list[str], heads: int, code: str
) -> None:
    size = 64
    result = forked(
        "tools/train.py", CONFIG, "configs/norm/seednorm.yaml", *model, "model.embed_dim=null",
        "model.depth=1", "model.num_heads=null", f"data.img_size={size}",
        f"norm.options={{num_heads: {heads}}}", "trainer.epochs=1", "optim.warmup_epochs=0",
        "model.init_from=nowhere.ckpt", f"output_dir={tmp_path}", code=2,
    )  # fmt: skip
    assert ("nowhere.ckpt" if heads == 7 else code) in result.stderr
