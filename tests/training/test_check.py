"""Impossible combinations are found before data is read: by looking, then by building."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vision.config import Config, load_config
from vision.config.load import split_arguments
from vision.models.classifier import create_classifier
from vision.training.build import check_build
from vision.training.check import check_config, load_checked

CONFIGS = Path(__file__).parents[2] / "configs"
NORMS = [
    *(str(CONFIGS / f"norm/{name}.yaml") for name in ("seednorm", "seednorm_drop_path")),
    *("norm.name=layernorm", "norm.name=dyt"),
]


def refusal(*overrides: str) -> str:
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_and_build(str(CONFIGS / "vit_b_seednorm.yaml"), *overrides)
    return str(caught.value)


def load_and_build(*arguments: str) -> None:
    loaded = load_checked(arguments)
    with loaded.located():
        check_build(loaded.config)


def check(config: Config) -> None:
    check_config(config)
    check_build(config)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.img_size=10"], ["data.img_size = 10", "patch size 4", "8 or 12"]),
        (["norm.name=seednrm"], ["norm.name = 'seednrm'", "did you mean 'seednorm'"]),
        (["norm.options.num_heads=7"], ["num_heads=7", "dim=768", "try [1, 2, 3, 4, 6"]),
        (["model.num_heads=7"], ["model.num_heads = 7", "768", "nearest: 6"]),
        (["model.name=vit_base_patch16_244"], ["did you mean 'vit_base_patch16_224'"]),
        (["data.name=folder"], ["data.root"]),
        (["data.name=folder", "data.root=/no/such"], ["data.root", "/no/such"]),
        (["norm.module=nowhere.py"], ["norm.module = nowhere.py", "no such file"]),
        (["optim.lr=0"], ["optim.lr = 0", "more than 0"]),
        (
            ["data.augment.auto_augment=rand-m9", "data.augment.color_jitter=0.4"],
            ["data.augment.color_jitter = 0.4", "rand-m9, which replaces it", "set it to 0"],
        ),
        (["optim.lr=.nan"], ["optim.lr = nan"]),
        (["model.drop_path_rate=1"], ["model.drop_path_rate = 1", "less than 1"]),
        (["data.crop_pct=0"], ["data.crop_pct = 0"]),
        (["optim.betas=[0.9, 1]"], ["optim.betas = [0.9, 1.0]", "less than 1"]),
        (["optim.warmup_epochs=9", "trainer.epochs=9"], ["optim.warmup_epochs = 9", "= 9)"]),
        (["name=../../escape"], ["name = ", "letters, digits"]),
        (
            ["norm.name=powernorm", "trainer.precision=16-mixed"],
            ["trainer.precision = 16-mixed", "PowerNorm averages gradients", "use bf16-mixed"],
        ),
        (["model.name=resnet18"], ["model.patch_size = 4", "resnet18 takes no", "set it to null"]),
    ],
)
def test_impossible_settings_are_refused(overrides: list[str], expected: list[str]) -> None:
    message = refusal(*overrides)
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_the_place_of_the_key_is_named() -> None:
    assert refusal("norm.options.num_heads=7").startswith("command line: ")
    loaded = load_config([CONFIGS / "vit_ti.yaml", CONFIGS / "norm/seednorm.yaml"])
    place = str(loaded.locate(ValueError("data.img_size = 8: example")))
    assert "digits.yaml:9: " in place


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("vit_*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_config_can_be_run(file: Path) -> None:
    check(load_config([file]).config)


@pytest.mark.parametrize("recipe", ["imagenet_vit_b", "imagenet_vit_l"])
def test_recipes_take_each_norm(recipe: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "n01440764").mkdir(parents=True)
    for norm in NORMS:
        arguments = [str(CONFIGS / "recipes" / f"{recipe}.yaml"), norm, f"data.root={tmp_path}"]
        loaded = load_config(*split_arguments(arguments))
        check(loaded.config)
        config = loaded.config
        assert config.data.img_size == 224
        assert config.model.patch_size is None
        assert config.trainer.batch_size_total == 4096
        assert config.name == f"{recipe}_{config.norm.name}"


@pytest.mark.parametrize(("recipe", "rate"), [("imagenet_vit_b", 0.1), ("imagenet_vit_l", 0.4)])
def test_recipes_drop_seednorms_coefficient_as_they_drop_paths(recipe: str, rate: float) -> None:
    files = [CONFIGS / f"recipes/{recipe}.yaml", CONFIGS / "norm/seednorm_drop_path.yaml"]
    with torch.device("meta"):
        model, conversion = create_classifier(load_config(files).config, 1000)
    blocks = list(model.get_submodule("blocks").children())
    for i, block in enumerate(blocks):
        for norm in (block.norm1, block.norm2):
            assert norm.num_heads == 16
            assert norm.dropout_rate == pytest.approx(rate * i / (len(blocks) - 1))
    assert model.get_submodule("norm").dropout_rate == 0
    assert str(conversion).endswith(f"coefficient dropout 0 to {rate} by block")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=1", ""),
        ("norm.name=sednorm", "no such norm; did you mean 'seednorm'"),
        ("task=clasify", "no such task; did you mean 'classify'"),
        ("optim.lr=-1", "expected more than 0"),
    ],
)
def test_looking_imports_no_torch(override: str, expected: str) -> None:
    code = (
        "import sys\n"
        "from vision.training.check import load_checked\n"
        f"try: load_checked(['configs/vit_b.yaml', 'norm.name=dyt', {override!r}])\n"
        f"except ValueError as error: assert {expected!r} in str(error)\n"
        f"else: assert not {expected!r}\n"
        "heavy = {'torch', 'timm', 'pytorch_lightning', 'numpy'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=CONFIGS.parent, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mae.mask_ratio=0.99", "of 16 patches"),
        ("mae.mask_ratio=1.0", "0 or more, and less than 1"),
        ("mae.decoder_embed_dim=90", "a multiple of 4"),
        ("mae.decoder_norm=layernrm", "did you mean 'layernorm'"),
        ("mae.decoder_norm_options={eps: 1.0e-5}", "of no norm"),
        ("optim.layer_decay=0.65", "task mae has no use for it; set it to null"),
        ("mix.mixup=0.8", "task mae has no use for it; set it to 0.0"),
        ("model.name=resnet18", "vit_"),
    ],
)
def test_an_autoencoder_that_cannot_be_is_refused_by_its_key(override: str, message: str) -> None:
    sizes = ["data.img_size=8", "model.patch_size=2", "mae.decoder_num_heads=3"]
    if "resnet" in override:
        sizes = ["model.patch_size=null"]
    with pytest.raises(ValueError, match=override.partition("=")[0].replace(".", r"\.")) as error:
        check(load_config([CONFIGS / "mae_ti.yaml"], [*sizes, override]).config)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "batch"),
    [("mae", 4096), ("mae_finetune", 1024), ("mae_linprobe", 16384)],
)
def test_mae_recipes_take_each_norm(recipe: str, batch: int, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "n01440764").mkdir(parents=True)
    step = recipe.removeprefix("mae").removeprefix("_")
    name = f"imagenet_mae_{step}_b" if step else "imagenet_mae_b"
    for norm in NORMS:
        arguments = [str(CONFIGS / "recipes" / f"{name}.yaml"), norm, f"data.root={tmp_path}"]
        config = load_config(*split_arguments(arguments)).config
        check(config)
        assert config.data.img_size == 224
        assert config.model.patch_size is None
        assert config.data.train_fraction == 1.0
        assert config.trainer.batch_size_total == batch
