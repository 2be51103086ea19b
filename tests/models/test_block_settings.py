"""Placements of norms and residual forms as settings: files that know them, what is refused."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vision.checkpoints.export import export_model, load_exported
from vision.checkpoints.init_from import initialize_from
from vision.checkpoints.mae_formats import to_official
from vision.config import Config
from vision.models.classifier import create_classifier
from vision.models.mae import create_mae
from vision.norms import Norm, register_norm
from vision.registry import NORMS
from vision.tasks.dit import DiTTask

SETTINGS = [
    *({"norm_placement": placement} for placement in ("pre", "res_post", "post", "peri")),
    *({"residual": residual} for residual in ("fixup", "rescale")),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: next(iter(s.values())))
def test_fine_tuning_and_export_know_the_blocks(
    vit_config, settings: dict[str, str], tmp_path: Path
) -> None:
    source = create_mae(vit_config("mae", **settings))[0]
    record = {"task": "mae", "config": {"model": dict(settings), "norm": {"name": "layernorm"}}}
    state = {f"model.{k}": v for k, v in source.state_dict().items()}
    file = tmp_path / "last.ckpt"
    torch.save({"state_dict": state, "vision": record, "pytorch-lightning_version": "2"}, file)
    config = vit_config(**settings)
    model = create_classifier(config, 10)[0]
    report = initialize_from(model, str(file), norm="layernorm", blocks=config.model)
    assert report.missing == ("head.bias", "head.weight")
    expected = source.encoder.state_dict()["blocks.1.mlp.fc1.weight"]
    assert torch.equal(model.blocks[1].mlp.fc1.weight, expected)
    other = vit_config(norm_placement="post" if settings != SETTINGS[2] else "peri")
    with pytest.raises(ValueError, match=r"its blocks have model\.(norm_placement|residual)=.*set"):
        initialize_from(create_classifier(other, 10)[0], str(file), blocks=other.model)

    export_model(model, config, tmp_path / "exported", [str(i) for i in range(10)])
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(load_exported(tmp_path / "exported")(images), model.eval()(images))
    if settings != SETTINGS[0]:
        with pytest.raises(ValueError, match="blocks of kind .*Block, which the published format"):
            to_official(source)


def test_norms_and_blocks_of_a_model_come_from_the_registry(vit_config) -> None:
    _, conversion = create_classifier(
        vit_config(norm_placement="peri", qk_norm=True, mlp_norm=True), 10
    )
    assert len(conversion.swapped) == 2 * (4 + 2 + 1) + 1
    for residual in ("fixup", "rescale"):
        config = vit_config(residual=residual)
        config.norm.name = "rmsnorm"
        assert [s[::2] for s in create_classifier(config, 10)[1].swapped] == [("norm", "RMSNorm")]


def test_a_norm_with_its_activation_trains_behind_mlp_norm(vit_config) -> None:
    config = vit_config(mlp_norm=True)
    config.norm.name = "evonorm_s0"
    model, conversion = create_classifier(config, 10)
    assert str(conversion).startswith("2 norms -> EvoNormS0: 2 GELU and LayerNorm; 5 left: ")
    model(torch.randn(2, 1, 8, 8)).square().sum().backward()
    assert model.blocks[0].mlp.fc1.weight.grad.abs().max() > 0
    config.model.mlp_norm = None
    with pytest.raises(ValueError, match=r"norm\.name = 'evonorm_s0': .*model\.mlp_norm=true"):
        create_classifier(config, 10)
    mae = vit_config("mae", mlp_norm=True)
    mae.norm.name = "evonorm_s0"
    with pytest.raises(ValueError, match=r"mae\.decoder_norm = 'evonorm_s0': contains .*layernorm"):
        create_mae(mae)
    mae.mae.decoder_norm = "layernorm"
    assert create_mae(mae)[0](torch.randn(2, 1, 8, 8))[0].isfinite()
    dit = Config(task="dit")
    dit.model.name, dit.data.img_size, dit.norm.name = "dit_s_4", 8, "evonorm_s0"
    with pytest.raises(ValueError, match="a DiT has no norm behind one"), torch.device("meta"):
        DiTTask.create_model(dit, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"norm_placement": "post", "residual": "fixup"}, "norm_placement = 'post': blocks have"),
        ({"qk_norm": True, "residual": "rescale"}, "model.qk_norm = True: blocks have no norms"),
        ({"mlp_norm": True, "residual": "fixup"}, "model.mlp_norm = True: blocks have no norms"),
        ({"name": "convnext_tiny", "norm_placement": "post"}, "convnext_tiny is no ViT"),
        ({"name": "resnet18", "qk_norm": True}, "model.qk_norm = True: resnet18 is no ViT"),
        (
            {"name": "vit_small_patch16_18x2_224", "norm_placement": "peri"},
            "blocks of vit_small_patch16_18x2_224 are ParallelThingsBlock",
        ),
        ({"name": "deit3_small_patch16_224", "residual": "rescale"}, "no place for the LayerScale"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(
    vit_config, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        create_classifier(vit_config(**settings), 10)


@pytest.mark.parametrize(
    ("key", "value"),
    [("norm_placement", "post"), ("residual", "fixup"), ("qk_norm", True), ("mlp_norm", True)],
)
def test_a_dit_takes_none_of_them(key: str, value: object) -> None:
    config = Config(task="dit")
    config.data.mean = config.data.std = [0.5]
    config.data.in_chans = 1
    DiTTask.check(config)
    setattr(config.model, key, value)
    with pytest.raises(ValueError, match=rf"model\.{key} = {value!r}: task dit has no use for it"):
        DiTTask.check(config)


def test_places_of_tokens_are_unknown_to_queries_and_keys(
    vit_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NORMS, "registered", dict(NORMS.registered))

    @register_norm("grid_norm")
    class GridNorm(Norm):
        needs_grid = True

        def normalize(self, x: Tensor) -> Tensor:
            return x

    config = vit_config(qk_norm=True)
    config.norm.name = "grid_norm"
    with pytest.raises(ValueError, match=r"attn\.q_norm: GridNorm needs the places.*qk_norm=false"):
        create_classifier(config, 10)
