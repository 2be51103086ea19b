"""DiT: parity with the published implementation, norms, saving, checkpointing, compilation."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vision.checkpoints.dit_formats import from_diffusers, from_official, to_diffusers
from vision.models.dit import DiT, named_dit
from vision.models.dit_sizes import DIT_NAMES
from vision.norms import create_norm, get_norm, list_norms, register_norm
from vision.registry import NORMS

# a norm that contains its activation has no place in a DiT
STANDING = [n for n in list_norms() if not getattr(get_norm(n), "contains_activation", False)]
FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = {"sample_size": 8, "patch_size": 2, "embed_dim": 48, "depth": 2, "num_heads": 3}


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(FIXTURES / "dit_tiny.safetensors")


@pytest.fixture
def official(reference) -> dict[str, torch.Tensor]:
    return {k.removeprefix("state."): v for k, v in reference.items() if k.startswith("state.")}


def tiny(**options) -> DiT:
    torch.manual_seed(0)
    return DiT(**{**TINY, "num_classes": 10, **options})


def inputs(channels: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = torch.randn(3, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return x, torch.tensor([0, 500, 999]), torch.tensor([0, 4, 10])


def awake(model: DiT) -> DiT:
    """Weights that are not zero where adaLN-Zero starts with zero."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def test_forward_of_an_official_checkpoint(reference, official) -> None:
    model = from_official(official, input_size=8, num_heads=3).eval()
    assert model.config.depth == 2 and model.config.num_classes == 10 and model.config.learn_sigma
    with torch.no_grad():
        out = model(reference["x"], reference["t"], reference["y"]).sample
    torch.testing.assert_close(out, reference["out"], atol=1e-5, rtol=0)


def test_a_training_checkpoint_gives_its_average(official) -> None:
    plain = {k: torch.zeros_like(v) for k, v in official.items()}
    model = from_official({"model": plain, "ema": official, "opt": {}}, num_heads=3)
    torch.testing.assert_close(model.state_dict(), dict(official))


def test_position_embeddings_are_the_published_ones(official) -> None:
    assert torch.equal(tiny().pos_embed, official["pos_embed"])


@pytest.mark.parametrize("name", ["dit_b_4", "dit_xl_2"])
def test_names_and_shapes_of_full_sizes_are_the_official_ones(name: str) -> None:
    with torch.device("meta"):
        model = named_dit(name)
    manifest = json.loads((FIXTURES / f"manifest_{name}.json").read_text())
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == manifest


def test_wrong_official_input_is_named(official) -> None:
    with pytest.raises(ValueError, match="input_size=16: the checkpoint is for 8"):
        from_official(official, input_size=16, num_heads=3)
    with pytest.raises(ValueError, match="no published size has width 48"):
        from_official(official)
    with pytest.raises(ValueError, match=r"no x_embedder\.proj\.weight"):
        from_official({"model": {}})


def test_diffusers_weights_convert_out_and_in(reference, official) -> None:
    model = from_official(official, num_heads=3).eval()
    other = to_diffusers(model)
    for block in other.transformer_blocks:  # the one thing that diffusers does differently
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    arguments = reference["x"], reference["t"], reference["y"]
    with torch.no_grad():
        theirs = other(arguments[0], timestep=arguments[1], class_labels=arguments[2]).sample
    torch.testing.assert_close(theirs, reference["out"], atol=1e-5, rtol=0)
    torch.testing.assert_close(from_diffusers(other).state_dict(), model.state_dict())


def test_what_diffusers_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="'seednorm': diffusers' DiT has only LayerNorm"):
        to_diffusers(tiny(norm="seednorm"))
    other = to_diffusers(tiny())
    other.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.weight.data += 1
    with pytest.raises(ValueError, match="differs from block 0"):
        from_diffusers(other)


@pytest.mark.parametrize("norm", STANDING)
def test_every_norm_stands_in_every_place(norm: str) -> None:
    model = awake(tiny(norm=norm))
    norms = [m for m in model.modules() if isinstance(m, get_norm(norm))]
    assert len(norms) == 2 * 2 + 1
    model(*inputs()).sample.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("norm", STANDING)
def test_norms_have_no_affine_part_unless_asked_for(norm: str) -> None:
    wide = {"num_classes": 10, "norm": norm}
    plain, affine = (DiT(**TINY, **wide, norm_options=o) for o in (None, {"affine": True}))
    layer = {n for n, _ in plain.blocks[0].norm1.named_parameters()}
    expected = create_norm(norm, 48, affine=False)
    assert layer == {n for n, _ in expected.named_parameters()}
    assert plain.config.norm_options == {"affine": False}
    assert affine.config.norm_options == {"affine": True}
    full = create_norm(norm, 48)
    assert len(list(affine.blocks[0].norm1.parameters())) == len(list(full.parameters()))


@pytest.mark.parametrize(
    ("norm", "names"),
    [
        ("layernorm", []), ("rmsnorm", []), ("dyt", ["alpha"]), ("derf", ["alpha", "shift"]),
        ("seednorm", ["alpha", "beta"]),
    ],
)  # fmt: skip
def test_parameters_of_norms_are_the_published_ones(norm: str, names: list[str]) -> None:
    assert [n for n, _ in tiny(norm=norm).final_layer.norm_final.named_parameters()] == names


def test_a_norm_without_the_option_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NORMS, "registered", dict(NORMS.registered))

    @register_norm("plain_scale")
    class PlainScale(torch.nn.Module):
        def __init__(self, dim: int) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(dim))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    model = tiny(norm="plain_scale")
    assert model.config.norm_options == {} and model.blocks[0].norm1.weight.shape == (48,)


def test_what_starts_as_zero_is_chosen() -> None:
    both, blocks, neither = (tiny(zero_init=value) for value in (True, "blocks", False))
    assert both(*inputs()).sample.abs().max() == 0
    for model in (blocks, neither):
        assert model(*inputs()).sample.abs().mean() > 0.01
        assert model.final_layer.adaLN_modulation[1].weight.abs().min() > 0
    tokens, condition = torch.randn(2, 16, 48), torch.randn(2, 48)
    assert torch.equal(blocks.blocks[1](tokens, condition), tokens)
    assert not torch.allclose(neither.blocks[1](tokens, condition), tokens)


def test_a_drop_path_that_blocks_do_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="blocks of this model have no drop path; give a number"):
        tiny(norm="seednorm", norm_options={"coefficient_dropout": "drop_path"})


def test_one_shared_embedder_and_one_timestep_for_all() -> None:
    model = awake(tiny())
    assert sum("embedding_table" in name for name, _ in model.named_parameters()) == 1
    x, _, y = inputs()
    one = model(x, torch.tensor(500), y, return_dict=False)[0]
    torch.testing.assert_close(one, model(x, torch.tensor([500] * 3), y).sample)


def test_saving_and_loading_keep_the_norm(tmp_path: Path) -> None:
    model = awake(tiny(norm="seednorm", norm_options={"num_heads": 4}))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    loaded = DiT.from_pretrained(tmp_path)
    assert loaded.blocks[0].norm1.num_heads == 4
    torch.testing.assert_close(loaded(*inputs()).sample, model(*inputs()).sample)


def test_a_model_saved_when_norms_were_affine_by_default_loads(tmp_path: Path) -> None:
    model = awake(tiny(norm="dyt", norm_options={"affine": True}))
    model.save_pretrained(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    record["norm_options"] = None
    (tmp_path / "config.json").write_text(json.dumps(record))
    loaded = DiT.from_pretrained(tmp_path)
    assert loaded.config.norm_options == {"affine": True}
    assert torch.equal(loaded(*inputs()).sample, model(*inputs()).sample)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = awake(tiny()).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(*inputs()).sample.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-7, rtol=1e-5)


def test_the_graph_compiles_without_a_break() -> None:
    model = awake(tiny(norm="seednorm"))
    expected = model(*inputs(), return_dict=False)[0]
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs(), return_dict=False)[0], expected)


def test_names_give_the_published_sizes() -> None:
    assert len(DIT_NAMES) == 15
    with torch.device("meta"):
        model = named_dit("dit_l_8", sample_size=32, depth=2, embed_dim=None)
    assert (model.config.embed_dim, model.config.num_heads) == (1024, 16)
    assert (model.config.patch_size, model.config.depth) == (8, 2)
    with pytest.raises(ValueError, match="'dit_m_2' is no DiT"):
        named_dit("dit_m_2")
    with pytest.raises(ValueError, match="sample_size 9 is not a multiple"):
        tiny(sample_size=9)
    with pytest.raises(ValueError, match="embed_dim 48: must divide by 4 and num_heads 5"):
        tiny(num_heads=5)
