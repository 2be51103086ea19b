"""Weights that hold NaN are refused by every tool that loads weights, with the tensor's name."""

import shutil
from pathlib import Path

import diffusers
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from vision.checkpoints.dit_formats import to_diffusers
from vision.diffusion.pipeline import DiTPipeline
from vision.diffusion.schedulers import create_scheduler
from vision.models.dit import DiT

DIGITS = ["configs/data/digits.yaml", "data.train_fraction=0.02"]
NAMES = {"0": "ant", "1": "bee", "2": "cat"}


def damage(run: Path, name: str, folder: Path) -> Path:
    """A copy of a run, in whose last checkpoint one number of the model's tensor `name` is NaN."""
    copy = Path(shutil.copytree(run, folder))
    content = torch.load(copy / "last.ckpt", weights_only=True)
    found = {"model." + name, "ema.module." + name} & content["state_dict"].keys()
    for key in found:
        content["state_dict"][key].view(-1)[-1] = float("nan")
    torch.save(content, copy / "last.ckpt")
    return copy


def broken(module: nn.Module, name: str) -> nn.Module:
    module.get_parameter(name).data.view(-1)[0] = float("inf")
    return module.eval()


@pytest.fixture
def refused(forked):
    """TOOL ARGUMENTS ends with code 2 and one line that names a tensor."""

    def run(name: str, tool: str, *arguments: object) -> None:
        said = forked(f"tools/{tool}.py", *arguments, code=2)
        (line,) = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
        assert f"{name} holds numbers that are not finite" in line, line
        assert "Traceback" not in said.stderr

    return run


def test_of_a_classifiers_run(refused, trained: Path, small, tmp_path: Path) -> None:
    run = damage(trained, name := "blocks.1.mlp.fc1.bias", tmp_path / "run")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    refused(name, "evaluate", run)
    refused(name, "evaluate", run, "--export", tmp_path / "export")
    refused(name, "fid", "--real", tmp_path, "--fake", tmp_path, "--extractor", f"run:{run}")
    model = ["norm.name=seednorm", "norm.options.num_heads=4", *small]
    where = [f"model.init_from={run}", f"output_dir={tmp_path}", "name=new"]
    refused(name, "train", "configs/vit_ti.yaml", *model, *where)
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "export").iterdir()) == []


def test_of_a_timm_model(refused, tmp_path: Path) -> None:
    model = broken(timm.create_model("vit_tiny_patch16_224", num_classes=10), "cls_token")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    weights = ["--weights", tmp_path / "a.pth"]
    refused("cls_token", "evaluate", "vit_tiny_patch16_224", *weights, *DIGITS)
    sides = ["--real", tmp_path, "--fake", tmp_path]
    refused("cls_token", "fid", *sides, "--extractor", "timm:vit_tiny_patch16_224", *weights)


def test_of_an_autoencoder(refused, forked, small, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    drawn = [tmp_path / "a.png", "--output", tmp_path / "out.png"]
    decoder = ["mae.decoder_embed_dim=32", "mae.decoder_num_heads=2", "mae.decoder_depth=1"]
    length = ["data.train_fraction=0.1", "trainer.epochs=1", "optim.warmup_epochs=0"]
    where = [f"output_dir={tmp_path}", "name=mae"]
    forked("tools/train.py", "configs/mae_ti.yaml", *small, *decoder, *length, *where)
    run = damage(tmp_path / "mae", "decoder_blocks.0.attn.qkv.weight", tmp_path / "run")
    refused("decoder_blocks.0.attn.qkv.weight", "reconstruct", run, *drawn)
    content = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    names = {k: k.removeprefix("model.").removeprefix("encoder.") for k in content}
    published = {names[k]: v for k, v in content.items() if k.startswith("model.")}
    torch.save({"model": published}, tmp_path / "a.pth")
    heads = ["--num-heads", 3, "--decoder-num-heads", 2]
    refused("decoder_blocks.0.attn.qkv.weight", "reconstruct", tmp_path / "a.pth", *heads, *drawn)
    assert not (tmp_path / "out.png").exists()


def test_of_a_dits_run(refused, trained_dit: Path, tmp_path: Path) -> None:
    run = damage(trained_dit, name := "final_layer.linear.weight", tmp_path / "run")
    refused(name, "sample", run, "--out", tmp_path / "out")
    refused(name, "sample", run / "last.ckpt", "--out", tmp_path / "out")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    extractor = ["--extractor", "timm:vit_tiny_patch16_224", "--weights", tmp_path / "a.pth"]
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "a.pth")
    refused(name, "fid", "--real", tmp_path, "--fake", run, *extractor)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["transformer", "vae"])
@pytest.mark.parametrize("form", ["ours", "theirs"])
def test_of_a_saved_pipeline(part: str, form: str, refused, vae, tmp_path: Path) -> None:
    model, decoder = DiT(4, 2, 4, 24, 1, 3, num_classes=3), vae()
    name = {"transformer": "t_embedder.mlp.0.weight", "vae": "decoder.conv_in.bias"}[part]
    broken({"transformer": model, "vae": decoder}[part], name)
    if form == "ours":
        pipeline = DiTPipeline(model, create_scheduler("ddpm"), decoder, NAMES)
    else:
        scheduler = diffusers.DDIMScheduler(clip_sample=False)
        pipeline = diffusers.DiTPipeline(to_diffusers(model), decoder, scheduler)
        name = name.replace("t_embedder.mlp.0", "emb.timestep_embedder.linear_1")
    pipeline.save_pretrained(tmp_path / "saved")
    refused(name, "sample", tmp_path / "saved", "--out", tmp_path / "out", "--number", 2)
    assert not (tmp_path / "out").exists()


def test_of_a_vae(refused, vae, tmp_path: Path) -> None:
    decoder = vae()
    broken(decoder, "encoder.conv_in.bias")
    decoder.save_pretrained(tmp_path / "vae")
    where = ["--vae", tmp_path / "vae", "--output", tmp_path / "latents"]
    refused("encoder.conv_in.bias", "encode_latents", *DIGITS, *where)
    assert not (tmp_path / "latents").exists()
