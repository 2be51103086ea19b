"""What is refused of a DiT's configuration before data is read."""

from pathlib import Path

import pytest

from vision.config import load_config
from vision.config.load import split_arguments
from vision.models.dit import create_dit
from vision.training.build import check_build
from vision.training.check import check_config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("dit_*.yaml"))
NORMS = [
    *(str(path) for path in sorted((ROOT / "configs/norm").glob("dit_*.yaml"))),
    *(str(ROOT / "configs/norm/seednorm.yaml"), "norm.name=layernorm", "norm.name=rmsnorm"),
]


def check(*overrides: str) -> None:
    files = [ROOT / "configs/dit_b4.yaml", ROOT / "configs/norm/seednorm.yaml"]
    config = load_config(files, overrides).config
    check_config(config)
    check_build(config)


@pytest.mark.parametrize("norm", NORMS, ids=lambda argument: Path(argument).stem)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_sound_with_each_norm(path: Path, norm: str) -> None:
    config = load_config(*split_arguments([str(path), norm])).config
    check_config(config)
    check_build(config)
    assert config.task == "dit"
    assert config.model.embed_dim is not None  # narrowed


@pytest.mark.parametrize(
    ("overlay", "slope", "blocks_are_zero"),
    [
        ("dit_dyt", 0.5, False),
        ("dit_derf_b", 0.5, True),
        ("dit_derf_l", 0.5, False),
        ("dit_derf_xl", 1.0, False),
    ],
)
def test_overlays_start_as_the_suites_of_dyt_and_derf_do(
    overlay: str, slope: float, blocks_are_zero: bool
) -> None:
    config = load_config([CONFIGS[0], ROOT / f"configs/norm/{overlay}.yaml"]).config
    model = create_dit(config, 10)
    scalars = {"alpha", "shift"} if "derf" in overlay else {"alpha"}
    for name in ("blocks.0.norm1", "blocks.5.norm2", "final_layer.norm_final"):
        norm = model.get_submodule(name)
        assert {key for key, _ in norm.named_parameters()} == scalars
        assert norm.alpha.item() == slope
    sizes = [block.adaLN_modulation[1].weight.abs().max() for block in model.blocks]
    assert all((size == 0) == blocks_are_zero for size in sizes)
    assert model.final_layer.linear.weight.abs().max() > 0
    assert model.final_layer.adaLN_modulation[1].weight.abs().max() > 0


def test_the_recipe_restores_the_published_size(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "index.json").write_text("{}")
    recipe = ROOT / "configs/recipes/imagenet_dit.yaml"
    files = [ROOT / "configs/dit_xl2.yaml", recipe]
    config = load_config(files, [f"data.root={tmp_path}"]).config
    check_config(config)
    check_build(config)
    sizes = config.model.embed_dim, config.model.depth, config.model.patch_size
    assert sizes == (None, None, None)
    assert config.optim.lr == 1e-4 and config.optim.weight_decay == 0
    assert config.name == "imagenet_dit_xl_2_layernorm"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=dit_m_4", r"model.name = 'dit_m_4': task dit has none"),
        ("model.patch_size=3", r"data.img_size = 8: not a multiple of the patch size 3"),
        ("model.num_heads=3", r"model.num_heads = 3: does not divide the width 128"),
        ("norm.options.num_heads=7", r"num_heads=7 does not divide dim=128"),
        ("data.mean=[0.3]", r"data.mean = \[0.3\]: .*set it to \[0.5\]"),
        ("mix.mixup=0.2", r"mix.mixup = 0.2: task dit has no use for it"),
        ("dit.vae=somewhere", r"dit.vae = 'somewhere': decodes latents"),
        ("dit.zero_init=none", r"dit.zero_init = 'none': .*valid: true, false, blocks"),
        ("norm.options.coefficient_dropout=drop_path", r"norm.options = .*no drop path; give a nu"),
        ("dit.label_dropout=1", r"dit.label_dropout = 1.0: expected 0 or more, and less than 1"),
        ("dit.sample_steps=0", r"dit.sample_steps = 0: expected a number from 1 to 1000"),
        ("data.name=latents", r"data.root = null"),
    ],
)
def test_what_cannot_work_is_named(override: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check(override)


def test_width_must_suit_position_embeddings() -> None:
    with pytest.raises(ValueError, match=r"model.embed_dim = 30: .*nearest: 28 or 32"):
        check("model.embed_dim=30", "model.num_heads=3", "norm.options.num_heads=1")


@pytest.mark.parametrize("norm", ["layernorm", "batchnorm"])
def test_running_statistics_are_refused_where_activations_are_computed_again(norm: str) -> None:
    overrides = [f"norm.name={norm}", "dit.gradient_checkpointing=true"]
    config = load_config([ROOT / "configs/dit_b4.yaml"], overrides).config
    if norm == "layernorm":
        return check_build(config)
    with pytest.raises(ValueError, match="dit.gradient_checkpointing = true: norm 'batchnorm' kee"):
        check_build(config)
