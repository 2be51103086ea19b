"""Starting models from files: what is loaded, reshaped, left fresh or refused."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from vision.models.weights import initialize_from, read_checkpoint, state_dict_of
from vision.norms import convert_norms


def vit(classes: int = 10, size: int = 16, norm: str = "layernorm") -> torch.nn.Module:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=size, patch_size=4, depth=2, embed_dim=48,
        num_classes=classes,
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
