"""The masked autoencoder: parity with the published code, masking, formats, norms."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from vision.checkpoints.mae_formats import from_official, to_official
from vision.config import Config
from vision.models.mae import MAE, create_mae, sincos_positions
from vision.models.patches import patchify, unpatchify

FIXTURES = Path(__file__).parents[1] / "fixtures"
TOLERANCE = 1e-5  # float32, of losses, predictions and latents


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return load_file(FIXTURES / "mae_tiny.safetensors")


@pytest.fixture(scope="module")
def state(reference: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix("state."): v for k, v in reference.items() if k.startswith("state.")}


def official(state: dict[str, Tensor], **options) -> MAE:
    return from_official(state, img_size=32, num_heads=3, decoder_num_heads=2, **options)


def small_config(**mae) -> Config:
    config = Config(task="mae")
    config.model.name = "vit_tiny_patch16_224"
    config.model.patch_size, config.model.embed_dim = 4, 48
    config.model.depth, config.model.num_heads = 2, 3
    config.data.img_size = 16
    config.mae.decoder_embed_dim, config.mae.decoder_depth = 32, 1
    config.mae.decoder_num_heads = 2
    for key, value in mae.items():
        setattr(config.mae, key, value)
    return config


@pytest.mark.parametrize(("norm_pix_loss", "key"), [(False, "loss"), (True, "loss_norm_pix")])
def test_losses_and_predictions_are_those_of_the_published_code(
    reference: dict[str, Tensor], state: dict[str, Tensor], norm_pix_loss: bool, key: str
) -> None:
    model = official({"model": state}, norm_pix_loss=norm_pix_loss).eval()
    imgs, noise = reference["imgs"], reference["noise"]
    with torch.no_grad():
        latent, mask, ids_restore = model.encode(imgs, 0.75, noise)
        loss, pred, same_mask = model(imgs, noise=noise)
    assert torch.equal(ids_restore, reference["ids_restore"])
    assert torch.equal(mask, reference["mask"])
    assert torch.equal(mask, same_mask)
    for ours, theirs in ((latent, "latent"), (pred, "pred"), (loss.reshape(1), key)):
        torch.testing.assert_close(ours, reference[theirs], atol=TOLERANCE, rtol=0)


def test_positions_are_those_of_the_published_code(state: dict[str, Tensor]) -> None:
    for name, dim in (("pos_embed", 48), ("decoder_pos_embed", 32)):
        torch.testing.assert_close(sincos_positions(dim, 4), state[name], atol=1e-6, rtol=0)


def test_published_weights_come_back_under_their_names(state: dict[str, Tensor]) -> None:
    exported = to_official(official(state))
    assert exported.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(exported[name], tensor), name


def test_the_full_size_model_has_the_published_names_and_shapes() -> None:
    manifest = json.loads((FIXTURES / "manifest_mae_vit_b16.json").read_text())
    with torch.device("meta"):
        encoder = timm.create_model("vit_base_patch16_224", num_classes=0)
        model = MAE(encoder)
    assert {k: list(v.shape) for k, v in to_official(model).items()} == manifest


def test_weights_without_a_decoder_give_the_same_latent(
    reference: dict[str, Tensor], state: dict[str, Tensor]
) -> None:
    # the layout of timm's vit_base_patch16_224.mae: what timm itself builds and saves
    theirs = timm.create_model(
        "vit_base_patch16_224.mae", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3,
        num_classes=0,
    )  # fmt: skip
    theirs.load_state_dict({k: state[k] for k in theirs.state_dict()})
    model = official(theirs.state_dict())
    with torch.no_grad():
        latent, _, _ = model.encode(reference["imgs"], 0.75, reference["noise"])
        whole = model.encoder.forward_features(reference["imgs"])
        expected = theirs.eval().forward_features(reference["imgs"])
    torch.testing.assert_close(latent, reference["latent"], atol=TOLERANCE, rtol=0)
    assert torch.equal(whole, expected)
    assert len(model.decoder_blocks) == 8  # fresh, of the published size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_size": 64}, "img_size=64: the checkpoint is for 32"),
        ({"num_heads": 5}, "num_heads=5: does not divide the checkpoint's width 48"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    state: dict[str, Tensor], change: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        from_official(state, **{"num_heads": 3, "decoder_num_heads": 2, **change})


def test_a_state_dict_without_an_encoder_is_refused(state: dict[str, Tensor]) -> None:
    decoder = {k: v for k, v in state.items() if k.startswith("decoder")}
    with pytest.raises(ValueError, match=r"no patch_embed\.proj\.weight"):
        official(decoder)


def test_the_encoder_sees_visible_patches_only(reference: dict[str, Tensor], state) -> None:
    model = official(state).eval()
    imgs, noise = reference["imgs"], reference["noise"]
    with torch.no_grad():
        before, mask, _ = model.encode(imgs, 0.75, noise)
        hidden = unpatchify(
            patchify(imgs, model.patch_size) + 9 * mask.unsqueeze(-1), model.patch_size
        )
        after, _, _ = model.encode(hidden, 0.75, noise)
    assert torch.equal(before, after)
    assert before.shape == (2, 5, 48)


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 4), (0.5, 8), (0.9, 1)])
def test_the_lowest_noise_stays(ratio: float, kept: int) -> None:
    model, _ = create_mae(small_config())
    noise = torch.rand(3, 16, generator=torch.Generator().manual_seed(0))
    _, mask, _ = model.encode(torch.zeros(3, 3, 16, 16), ratio, noise)
    for row, chosen in zip(noise, mask, strict=True):
        assert set(row.argsort()[:kept].tolist()) == set((chosen == 0).nonzero()[:, 0].tolist())


def test_noise_comes_from_the_global_generator() -> None:
    model, _ = create_mae(small_config())
    imgs = torch.randn(2, 3, 16, 16)
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(model(imgs)[2])
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_patches_come_back_as_images() -> None:
    model, _ = create_mae(small_config())
    imgs = torch.randn(2, 3, 16, 16)
    patches = patchify(imgs, model.patch_size)
    assert torch.equal(patches[1, 5].reshape(4, 4, 3), imgs[1, :, 4:8, 4:8].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, model.patch_size), imgs)


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_a_reconstruction_keeps_what_was_visible(norm_pix_loss: bool) -> None:
    model, _ = create_mae(small_config(norm_pix_loss=norm_pix_loss))
    imgs, noise = torch.randn(2, 3, 16, 16), torch.rand(2, 16)
    with torch.no_grad():
        masked, filled = model.reconstruct(imgs, 0.75, noise)
        _, pred, mask = model(imgs, 0.75, noise)
    seen = mask == 0
    patches = patchify(imgs, model.patch_size)
    assert torch.equal(patchify(filled, model.patch_size)[seen], patches[seen])
    assert torch.equal(patchify(masked, model.patch_size)[seen], patches[seen])
    assert patchify(masked, model.patch_size)[~seen].abs().max() == 0
    if norm_pix_loss:
        std, mean = torch.std_mean(patches, dim=-1, keepdim=True)
        pred = pred * std + mean
    torch.testing.assert_close(
        patchify(filled, model.patch_size)[~seen], pred[~seen], atol=TOLERANCE, rtol=TOLERANCE
    )


def test_encoder_and_decoder_take_norms_of_the_registry() -> None:
    config = small_config(decoder_norm="rmsnorm")
    config.norm.name, config.norm.options = "seednorm", {"num_heads": 4}
    model, conversion = create_mae(config)
    kinds = {name: type(m).__name__ for name, m in model.named_modules() if "norm" in name}
    assert {v for k, v in kinds.items() if k.startswith("encoder.") and v != "Identity"} == {
        "SeeDNorm"
    }
    assert {v for k, v in kinds.items() if k.startswith("decoder_") and v != "Identity"} == {
        "RMSNorm"
    }
    assert len(conversion.swapped) == 5 + 3
    config.mae.decoder_norm = None
    model, _ = create_mae(config)
    assert type(model.decoder_norm).__name__ == "SeeDNorm"
    assert model.decoder_norm.num_heads == 4


def test_coefficients_drop_as_paths_do_which_the_decoder_has_none_of() -> None:
    config = small_config()
    config.model.drop_path_rate = 0.2
    config.norm.name, config.norm.options = "seednorm", {"coefficient_dropout": "drop_path"}
    model, conversion = create_mae(config)
    assert [block.norm1.dropout_rate for block in model.encoder.blocks] == pytest.approx([0, 0.2])
    assert model.decoder_blocks[0].norm1.dropout_rate == model.decoder_norm.dropout_rate == 0
    assert conversion.notes == (
        "coefficient dropout 0 to 0.2 by block",
        "decoder: coefficient dropout 0 everywhere: the blocks have no drop path",
    )


def test_positions_do_not_train() -> None:
    model, _ = create_mae(small_config())
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {"encoder.pos_embed", "decoder_pos_embed"}


def test_a_model_without_class_token_is_refused() -> None:
    config = small_config()
    config.model.name = "vit_base_patch16_siglip_224"
    with pytest.raises(ValueError, match="class token"):
        create_mae(config)
