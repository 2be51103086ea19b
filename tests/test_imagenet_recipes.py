"""The commands of docs/imagenet.md run in their order, on a set of ImageNet's shape.

Their models are whole, but for memory's sake ViT-L, MAE-L's encoder, its decoder and DiT-XL/2 keep
their width and have one block. Smaller are the numbers of images, steps and processes, the batch,
and what is sampled; the VAE is small, and it and the Inception of FID have random weights.
"""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from vision.checkpoints.export import load_exported
from vision.evaluation.classifier import load_classifier

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SHAPED = runpy.run_path(str(ROOT / "tests/imagenet_shaped.py"))
PAGE = runpy.run_path(str(ROOT / "tests/docs/test_commands.py"))

STEPS = [
    "trainer.max_steps=3", "trainer.devices=1", "trainer.batch_size_total=2",
    "trainer.batch_size_device=2", "data.num_workers=0",
]  # fmt: skip
FEW = {
    "tools/train.py": STEPS,
    "tools/evaluate.py": ["--corruptions", "gaussian_noise"],
    "tools/encode_latents.py": [],
    "tools/sample.py": ["--number", "4", "--steps", "2"],
    "tools/fid.py": ["--confidence-groups", "0", "--cache", "cache"],
}
GENERATED = ["evaluation.number=4", "evaluation.num_inference_steps=2", "model.depth=1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the page takes it: a thousand classes, of which twelve have images."""
    home = tmp_path_factory.mktemp("imagenet")
    for name in ("configs", "tools"):
        (home / name).symlink_to(ROOT / name)
    images = SHAPED["write_folder"](home / "datasets/imagenet", train=1, val=2, classes=12)
    for split in ("train", "val"):
        for synset in SHAPED["CLASSES"]:
            (images / split / synset).mkdir(exist_ok=True)
    return home


@pytest.fixture
def run(forked, home: Path):
    """Run a command of the page, or one like it, smaller by FEW."""

    def call(words: list[str], *smaller: str) -> str:
        tool, *arguments = [word.replace("/datasets", f"{home}/datasets") for word in words]
        if "--plan" not in arguments and "--export" not in arguments:
            arguments += [*FEW[tool], *smaller]
        return forked(tool, *arguments, folder=home).stdout

    return call


def commands(section: str) -> list[list[str]]:
    """The calls of our tools in a section of the page."""
    text = (ROOT / "docs/imagenet.md").read_text(encoding="utf-8")
    part = re.search(rf"(?ms)^## {section}\n(.*?)(?=^## |\Z)", text)
    assert part is not None
    code = "\n".join(re.findall(r"(?ms)^```(?:sh|bash)\n(.*?)^```", part[1]))
    return [PAGE["tool_call"](words) for words in PAGE["commands"](code)]


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.ones(1, 3, 224, 224))


def test_every_command_of_the_page_is_run() -> None:
    page = (ROOT / "docs/imagenet.md").read_text(encoding="utf-8")
    everywhere = {section: commands(section) for section in re.findall(r"(?m)^## (.*)", page)}
    with_commands = {section: found for section, found in everywhere.items() if found}
    # the first three whole, by the tests below
    assert list(with_commands) == [
        "Classification", "Masked autoencoder", "Generation", "Norms compared"
    ]  # fmt: skip
    grids = {Path(words[1]).stem for words in with_commands.pop("Norms compared")}
    planned = (ROOT / "tests/compare/test_imagenet_grids.py").read_text(encoding="utf-8")
    assert grids == {
        f"imagenet_{grid}" for grid in re.findall(r'(?m)^ +\("(\w+)", "\w+", \[', planned)
    }
    assert {words[0] for found in with_commands.values() for words in found} == FEW.keys()


def test_classification(run, forked, home: Path) -> None:
    outputs = [run(words) for words in commands("Classification")]
    assert len(outputs) == 4
    assert "GPU hours" in outputs[0]
    assert "━" not in outputs[1]  # no bar, but lines, where nobody looks
    vit = home / "runs/imagenet_vit_b_seednorm"
    assert summary(vit)["steps"] == 3 and summary(vit)["parameters"] == 86_586_856
    assert "gaussian_noise" in outputs[2]
    assert torch.equal(
        logits(load_exported(home / "exported")), logits(load_classifier(vit, ema=True).model)
    )

    large = ["configs/recipes/imagenet_vit_l.yaml", "data.root=/datasets/imagenet"]
    run(["tools/train.py", *large], "model.depth=1")  # LayerNorm
    layernorm = home / "runs/imagenet_vit_l_layernorm"
    forked("tools/evaluate.py", layernorm, "--export", home / "timm")
    plain = timm.create_model(f"local-dir:{home / 'timm'}", pretrained=True).eval()
    assert torch.equal(logits(plain), logits(load_classifier(layernorm).model))


def test_masked_autoencoders(run, home: Path) -> None:
    for words in commands("Masked autoencoder"):
        fewer = ["trainer.max_steps=2"] if "model.init_from" in str(words) else []
        run(words, *fewer)
    for name, parameters in (("mae", None), ("mae_finetune", 86_586_856), ("mae_linprobe", None)):
        found = summary(home / f"runs/imagenet_{name}_b_seednorm")
        assert found["steps"] == (3 if name == "mae" else 2)
        assert parameters in (None, found["parameters"])
    large = ["configs/recipes/imagenet_mae_l.yaml", "data.root=/datasets/imagenet"]
    call = ["tools/train.py", *large]
    small = ["model.depth=1", "mae.decoder_depth=1", "trainer.checkpoint_every_n_steps=2"]
    run(call, *small)
    mae = home / "runs/imagenet_mae_l_layernorm"
    for name in ("last.ckpt", "summary.json"):
        (mae / name).unlink()  # as if it had been killed after two steps
    two = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.batch_size_device=1"]
    output = run(call, *small, *two, "--resume")
    assert "resume  from step 2" in output and "trainer.devices = 2, was 1" in output
    assert summary(mae)["steps"] == 3


def test_generation(run, home: Path) -> None:
    vae, weights = write_vae(home / "vae"), write_inception(home / "inception.pth")
    write_reference(home / "VIRTUAL_imagenet256_labeled.npz")
    encode, train, sample, fid = commands("Generation")
    encode[encode.index("--vae") + 1] = str(vae)
    assert "12 images" in run(encode)
    run(train, *GENERATED, f"evaluation.weights={weights}", f"dit.vae={vae}")
    dit = home / "runs/imagenet_dit_xl_2_seednorm"
    assert summary(dit)["steps"] == 3
    during = dit / "evaluation/step_0000003.json"
    assert json.loads(during.read_text())["fid"] > 0
    run(sample)
    assert len(list((home / "samples/images").rglob("*.png"))) == 4
    output = run(fid, "--weights", str(weights))
    for metric in ("FID", "sFID", "IS", "precision", "recall"):
        assert re.search(rf"│ {metric} +│", output), output


def write_vae(folder: Path) -> Path:
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8,) * 4, norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_inception(file: Path) -> Path:
    """Random weights for the FID Inception."""
    with pytest.MonkeyPatch.context() as patch:  # the constructor would fetch trained weights
        source = "torch_fidelity.feature_extractor_inceptionv3"
        patch.setattr(f"{source}.load_state_dict_from_url", lambda url, progress: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        model = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    torch.save(model.state_dict(), file)
    return file


def write_reference(file: Path) -> None:
    """Images and statistics under the names that ADM's evaluation gives them."""
    images = np.random.default_rng(0).integers(0, 256, (6, 256, 256, 3), dtype=np.uint8)
    statistics = {"mu": np.zeros(2048), "sigma": np.eye(2048)}
    spatial = {"mu_s": np.zeros(2023), "sigma_s": np.eye(2023)}
    np.savez(file, arr_0=images, **statistics, **spatial)
