"""Starting models from files: what is loaded, reshaped, left fresh or refused."""

import argparse
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from vision.checkpoints.init_from import initialize_from
from vision.checkpoints.mae_formats import to_official
from vision.checkpoints.read import read_checkpoint, state_dict_of
from vision.config import Config
from vision.models.mae import MAE, create_mae
from vision.norms import convert_norms


def vit(
    classes: int = 10, size: int = 16, norm: str = "layernorm", global_pool: str = "token"
) -> torch.nn.Module:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=size, patch_size=4, depth=2, embed_dim=48,
        num_classes=classes, num_heads=3, global_pool=global_pool,
    )  # fmt: skip
    convert_norms(model, norm)
    return model


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_all_tensors_come_from_the_file(tmp_path: Path, suffix: str) -> None:
    source, target = vit(), vit()
    file = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), file)
    report = initialize_from(target, str(file))
    assert len(report.loaded) == len(source.state_dict())
    assert not report.missing
    assert not report.reshaped
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name])


def test_another_number_of_classes_keeps_the_fresh_classifier(tmp_path: Path) -> None:
    source, target = vit(classes=10), vit(classes=3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    before = target.head.weight.detach().clone()
    report = initialize_from(target, str(tmp_path / "w.safetensors"))
    assert report.missing == ("head.bias", "head.weight")
    assert "missing 2" in str(report)
    assert torch.equal(target.head.weight, before)
    assert torch.equal(target.blocks[1].attn.qkv.weight, source.blocks[1].attn.qkv.weight)


def test_position_embeddings_are_interpolated_to_another_grid(tmp_path: Path) -> None:
    source, target = vit(size=16), vit(size=32)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    report = initialize_from(target, str(tmp_path / "w.safetensors"))
    assert report.reshaped == ("pos_embed",)
    assert torch.equal(target.pos_embed[:, 0], source.pos_embed[:, 0])


def test_a_file_of_another_norm_is_refused(tmp_path: Path) -> None:
    save_file(vit(norm="dyt").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"model\.init_from = .*lacks.*norm\.name"):
        initialize_from(vit(norm="seednorm"), str(tmp_path / "w.safetensors"))


def test_a_file_of_another_width_is_refused(tmp_path: Path) -> None:
    other = timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=4, depth=2)
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="has another shape"):
        initialize_from(vit(), str(tmp_path / "w.safetensors"))


def test_averaged_weights_are_asked_for_by_name() -> None:
    content = {
        "pytorch-lightning_version": "2",
        "state_dict": {"model.a": torch.ones(1), "ema.module.a": torch.zeros(1)},
    }
    assert state_dict_of(content)["a"] == 1
    assert state_dict_of(content, ema=True)["a"] == 0
    del content["state_dict"]["ema.module.a"]
    with pytest.raises(ValueError, match="no averaged weights"):
        state_dict_of(content, ema=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"PK\x03\x04 cut"])
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    for suffix in (".ckpt", ".safetensors"):
        file = tmp_path / f"broken{suffix}"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"broken.{suffix[1:]}: "):
            read_checkpoint(file)


def mae(norm: str = "layernorm", size: int = 16) -> MAE:
    config = Config(task="mae")
    config.norm.name = norm
    config.model.name, config.model.patch_size = "vit_tiny_patch16_224", 4
    config.model.depth, config.model.embed_dim, config.model.num_heads = 2, 48, 3
    config.data.img_size = size
    config.mae.decoder_embed_dim, config.mae.decoder_depth = 32, 1
    config.mae.decoder_num_heads = 2
    return create_mae(config)[0]


@pytest.mark.parametrize("form", ["run", "official", "encoder"])
def test_a_classifier_starts_from_an_autoencoder(tmp_path: Path, form: str) -> None:
    source, target = mae(), vit()
    state = {
        "run": source.state_dict(),
        "official": {"model": to_official(source), "args": argparse.Namespace(epochs=1)},
        "encoder": {"model": source.encoder.state_dict()},
    }[form]
    torch.save(state, tmp_path / "w.pth")
    report = initialize_from(target, str(tmp_path / "w.pth"))
    body = {k: v for k, v in target.state_dict().items() if not k.startswith("head.")}
    assert set(report.loaded) == set(body)
    assert report.missing == ("head.bias", "head.weight")
    assert len(report.unexpected) == (0 if form == "encoder" else 20)  # the decoder
    for name, tensor in source.encoder.state_dict().items():
        assert torch.equal(body[name], tensor), name


def test_mean_pooling_starts_with_a_fresh_norm(tmp_path: Path) -> None:
    torch.save(to_official(mae()), tmp_path / "w.pth")
    target = vit(global_pool="avg")
    report = initialize_from(target, str(tmp_path / "w.pth"))
    assert report.missing == ("fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight")
    assert {"norm.weight", "norm.bias"} <= set(report.unexpected)
    assert report.fresh_norms == 0


def test_an_autoencoder_of_another_resolution_is_interpolated(tmp_path: Path) -> None:
    torch.save(mae(size=16).state_dict(), tmp_path / "w.pth")
    report = initialize_from(vit(size=32), str(tmp_path / "w.pth"))
    assert report.reshaped == ("pos_embed",)
    assert "reshaped 1: pos_embed" in str(report)


@pytest.mark.parametrize("norm", ["rmsnorm", "dyt", "seednorm"])
def test_norms_of_another_kind_are_refused_or_start_fresh(tmp_path: Path, norm: str) -> None:
    source = mae("layernorm")
    torch.nn.init.constant_(source.encoder.blocks[0].norm1.weight, 7.0)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    target = vit(norm=norm)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ValueError, match="another norm .*init_from_norms=carry_over"):
        initialize_from(target, str(tmp_path / "w.pth"), norm=norm)
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
    report = initialize_from(target, str(tmp_path / "w.pth"), strict=False, norm=norm)
    assert report.fresh_norms == 5
    assert "5 norms start fresh: the file has another norm" in str(report)
    after = target.state_dict()
    for name in before:
        loaded = "norm" not in name and not name.startswith("head.")
        assert torch.equal(after[name], before[name]) != loaded or not name.endswith("weight")
    assert torch.equal(after["blocks.1.mlp.fc1.weight"], source.encoder.blocks[1].mlp.fc1.weight)


def test_a_run_that_records_another_norm_of_the_same_shape_is_refused(tmp_path: Path) -> None:
    record = {"config": {"norm": {"name": "scale_of_my_own"}}}
    torch.save({"vision": record, "state_dict": vit().state_dict()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="was trained with another"):
        initialize_from(vit(), str(tmp_path / "w.pth"), norm="layernorm")


def test_a_checkpoint_without_an_encoder_is_refused(tmp_path: Path) -> None:
    decoder = {k: v for k, v in mae().state_dict().items() if k.startswith("decoder_")}
    torch.save(decoder, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="holds no encoder"):
        initialize_from(vit(), str(tmp_path / "w.pth"))


def test_an_autoencoder_goes_on_from_published_weights(tmp_path: Path) -> None:
    source, target = mae(), mae()
    torch.save({"model": to_official(source)}, tmp_path / "w.pth")
    report = initialize_from(target, str(tmp_path / "w.pth"))
    assert not report.missing
    assert not report.unexpected
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name]), name


class _RunsCode:
    def __reduce__(self) -> tuple:
        return print, ("code ran",)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path: Path, capsys) -> None:
    torch.save({"model": vit().state_dict(), "more": _RunsCode()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="refused, it holds more than weights"):
        initialize_from(vit(), str(tmp_path / "w.pth"))
    assert "code ran" not in capsys.readouterr().out
