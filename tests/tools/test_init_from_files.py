"""Starting from files that do not fit at once, through the command line (`model.init_from`)."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

SIZES = {"patch_size": 4, "depth": 2, "embed_dim": 48, "num_heads": 3}
VIT = [f"model.{key}={value}" for key, value in SIZES.items()]
SAME = {"atol": 1e-20, "rtol": 0}  # the learning rate is so low that no more changes
SHORT = [
    "norm.name=layernorm", "trainer.epochs=1", "trainer.batch_size_total=4", "optim.opt=sgd",
    "optim.lr=1e-30", "optim.warmup_epochs=0", "optim.sched=constant", "ema.decay=null",
    "trainer.progress_bar=false", "data.in_chans=1", "data.num_workers=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images of two classes, two of each in each split."""
    root = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for name in ("train/a", "train/b", "val/a", "val/b"):
        (root / name).mkdir(parents=True)
        for index in range(2):
            pixels = draw.integers(0, 256, (16, 16), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.fixture
def train(forked, images: Path, tmp_path: Path):
    """Start a run from `w.pth`: (overrides, code) -> what it printed."""

    def run(*overrides: str, code: int = 0) -> str:
        splits = ["data.val_split=val", "data.test_split=null"]
        data = ["data.name=folder", f"data.root={images}", *splits]
        where = [f"output_dir={tmp_path}", "name=run", f"model.init_from={tmp_path / 'w.pth'}"]
        command = ["configs/vit_ti.yaml", *SHORT, *data, *where, *overrides]
        said = forked("tools/train.py", *command, code=code)
        assert "Traceback" not in said.stderr
        return said.stdout if code == 0 else said.stderr

    return run


def vit(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    made = {"img_size": 16, "in_chans": 1, "num_classes": 7, **SIZES, **options}
    return timm.create_model("vit_tiny_patch16_224", **made)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        ({"reg_tokens": 4}, "has 4 register tokens (reg_token), the model none"),
        ({"class_token": False, "global_pool": "avg"}, "has no class token (cls_token), the model"),
        ({"init_values": 1e-5}, "no place for blocks.0.ls1.gamma and 3 more"),
        ({"qk_norm": True}, "no place for blocks.0.attn.k_norm.bias and 7 more"),
        ({"depth": 3}, "the model has no place for blocks.2."),
        ({"embed_dim": 24}, "has another shape for blocks.0.attn.proj.bias"),
    ],
    ids=["registers", "no class token", "layer scale", "qk norms", "deeper", "narrower"],
)
def test_what_the_model_has_no_place_for_is_one_line(
    theirs: dict, message: str, train, tmp_path: Path
) -> None:
    torch.save(vit(**theirs).state_dict(), tmp_path / "w.pth")
    (line,) = train(*VIT, "data.img_size=8", code=2).splitlines()  # another grid at once
    assert f"model.init_from = {tmp_path / 'w.pth'}: " in line and message in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_norm_with_other_heads_has_the_same_tensors_and_is_refused(train, tmp_path: Path) -> None:
    def seednorm(heads: int) -> list[str]:
        return ["norm.name=seednorm", f"norm.options.num_heads={heads}", "data.img_size=16"]

    torch.save(vit().state_dict(), tmp_path / "w.pth")
    train(*VIT, *seednorm(1), "model.init_from=null", "name=one")
    for heads, code in ((16, 2), (2, 2), (1, 0)):
        start = f"model.init_from={tmp_path / 'one'}"
        said = train(*VIT, *seednorm(heads), start, code=code)
        if code == 2:
            told = f"it was trained with norm.options.num_heads=1, the model {heads}"
            assert told in said and not (tmp_path / "run").exists()
    assert "tensors loaded" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "options"),
    [("module.", {}), ("_orig_mod.", {"_use_new_zipfile_serialization": False})],
)
def test_wrappers_and_the_format_of_before_1_6_are_read(
    prefix: str, options: dict, train, tmp_path: Path
) -> None:
    state = vit().state_dict()
    torch.save({"model": {prefix + k: v for k, v in state.items()}}, tmp_path / "w.pth", **options)
    train(*VIT, "data.img_size=16")
    found = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    for name, tensor in state.items():
        if not name.startswith("head."):
            torch.testing.assert_close(found[f"model.{name}"], tensor, **SAME, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "theirs", "converted", "told"),
    [
        ("vit_tiny_patch16_224", (16, 8), {"in_chans": 3, **SIZES}, ("pos_embed", "patch_embed."),
         "patch_embed.proj adapted from 3 to 1 channels (data.in_chans)"),
        ("swin_tiny_patch4_window7_224", (32, 64), {}, ("relative_position_bias_table",),
         "relative_position_bias_table"),
        ("eva02_tiny_patch14_224", (28, 56), {}, ("pos_embed",), "reshaped 1: pos_embed"),
    ],
    ids=["vit", "swin", "eva02"],
)  # fmt: skip
def test_other_sizes_and_channels_are_converted_as_timm_does_and_that_is_said(
    name: str, sizes: tuple[int, int], theirs: dict, converted: tuple[str, ...], told: str,
    train, tmp_path: Path,
) -> None:  # fmt: skip
    made = timm.create_model(name, **{"img_size": sizes[0], "in_chans": 1, **theirs})
    torch.save(made.state_dict(), tmp_path / "w.pth")
    usual = [f"model.{key}=null" for key in SIZES]
    own = VIT if "vit_" in name else usual
    assert told in train(*own, f"model.name={name}", f"data.img_size={sizes[1]}")
    found = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    same = [k for k, _ in made.named_parameters() if not any(part in k for part in converted)]
    same = [k for k in same if not k.startswith("head.")]
    assert len(same) > 20
    for key in same:
        torch.testing.assert_close(found[f"model.{key}"], made.state_dict()[key], **SAME, msg=key)
