"""Starting from LayerNorm weights with another norm, through the command line."""

import csv
import re
from pathlib import Path

import pytest
import torch

MAE = [
    "mae.decoder_embed_dim=32", "mae.decoder_num_heads=2", "mae.pictures_every_n_epochs=null",
    "mae.knn_every_n_epochs=null",
]  # fmt: skip
OTHER = ["norm.name=dyt", "optim.warmup_epochs=0", "optim.lr=1e-30", "optim.sched=constant"]
MODES = ["fresh", "carry_over", "calibrate"]


@pytest.fixture(scope="module")
def classifier(forked, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("layernorm")
    forked("tools/train.py", "configs/vit_ti.yaml", *small, "trainer.epochs=6",
           f"output_dir={output}", "name=run")  # fmt: skip
    return output / "run"


@pytest.fixture(scope="module")
def autoencoder(forked, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("layernorm")
    forked("tools/train.py", "configs/mae_ti.yaml", *small, *MAE, f"output_dir={output}",
           "name=run")  # fmt: skip
    return output / "run"


def state(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "last.ckpt", weights_only=True)["state_dict"]


def errors(stdout: str) -> tuple[float, float]:
    found = re.search(r"mean relative error (\S+) before and (\S+) after", stdout)
    assert found is not None, stdout
    return float(found[1]), float(found[2])


@pytest.mark.slow
def test_what_does_not_fit_is_one_line_before_anything_is_made(
    forked, small: list[str], classifier: Path, tmp_path: Path
) -> None:
    content = torch.load(classifier / "last.ckpt", weights_only=True)
    content["state_dict"]["model.blocks.0.attn.qkv.bias"][3] = float("nan")
    torch.save(content, tmp_path / "diverged.pth")
    for source, setting, expected in [
        (classifier, "model.depth=1", "the model has no place for blocks.1."),
        (classifier, "model.num_heads=4", "the model 4; set model.num_heads="),
        (tmp_path / "diverged.pth", "seed=0", "blocks.0.attn.qkv.bias holds numbers that are not"),
    ]:
        result = forked(
            "tools/train.py", "configs/vit_ti.yaml", *small, setting, f"output_dir={tmp_path}",
            "name=new", f"model.init_from={source}", code=2,
        )  # fmt: skip
        assert expected in result.stderr.splitlines()[-1]
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_classifier_goes_on_with_another_norm(
    forked, small: list[str], classifier: Path, tmp_path: Path
) -> None:
    command = ["configs/vit_ti.yaml", *small, *OTHER, "trainer.epochs=1", f"output_dir={tmp_path}",
               "ema.decay=null", f"model.init_from={classifier}"]  # fmt: skip
    before, losses = state(classifier), {}
    for how in MODES:
        result = forked(
            "tools/train.py", *command, f"model.init_from_norms={how}", f"name={how}"
        )  # the learning rate is so low that nothing changes
        after = state(tmp_path / how)
        assert torch.equal(after["model.head.weight"], before["model.head.weight"])
        weight, bias = (f"model.blocks.1.norm1.{key}" for key in ("weight", "bias"))
        if how == "fresh":
            assert "5 norms start fresh" in result.stdout
            assert after[weight].tolist() == [1.0] * 48
        else:
            assert "norms   scale and shift from LayerNorm to DyT (5)\n" in result.stdout
            same = torch.equal(after[weight], before[weight])
            assert same == torch.equal(after[bias], before[bias]) == (how == "carry_over")
        if how == "calibrate":
            assert "calibrated on 512 training images: 5 of 5 norms fitted" in result.stdout
            assert errors(result.stdout)[1] < 0.6 * errors(result.stdout)[0]
        rows = csv.DictReader((tmp_path / how / "metrics.csv").open())
        losses[how] = [float(row["test/loss"]) for row in rows if row["test/loss"]][-1]
    assert losses["calibrate"] < 0.9 * min(losses["fresh"], losses["carry_over"])
    command = [c for c in command if not c.startswith("model.init_from")]
    result = forked("tools/train.py", *command, f"model.init_from={classifier}", "name=no", code=2)
    assert "has another norm than the model" in result.stderr
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
@pytest.mark.parametrize("how", MODES)
def test_an_autoencoder_goes_on_as_one_and_as_a_classifier(
    forked, small: list[str], autoencoder: Path, tmp_path: Path, how: str
) -> None:
    start = [f"model.init_from={autoencoder}", f"model.init_from_norms={how}"]
    common = [*small, *OTHER, "trainer.epochs=1", f"output_dir={tmp_path}", *start]
    tuned = ["configs/mae_ti_finetune.yaml", *common, "trainer.batch_size_total=24", "name=tuned"]
    further = ["configs/mae_ti.yaml", *common, *MAE, "mae.decoder_norm=layernorm",
               "optim.base_lr=1e-30", "name=further"]  # fmt: skip
    before = state(autoencoder)
    for arguments, encoder in ((tuned, ""), (further, "encoder.")):
        result = forked("tools/train.py", *arguments)
        after = state(tmp_path / arguments[-1].removeprefix("name="))
        weight = "blocks.1.norm2.weight"
        same = torch.equal(after[f"model.{encoder}{weight}"], before[f"model.encoder.{weight}"])
        assert same == (how == "carry_over")
        assert ("start fresh" in result.stdout) == (how == "fresh")
        if how == "calibrate":
            assert errors(result.stdout)[1] < errors(result.stdout)[0]
            assert f"calibrated on {512 if encoder else 120} training images" in result.stdout
    if how != "fresh":  # the decoder's norm is that of the file: all of it comes from there
        assert "scale and shift from LayerNorm to DyT (5)\n" in result.stdout
        for name, value in before.items():
            if name.startswith("model.decoder_"):
                assert torch.equal(after[name], value), name


@pytest.mark.slow
def test_resuming_needs_neither_the_file_nor_another_calibration(
    forked, kill, assert_same_training, small: list[str], classifier: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"  # as of timm: nothing says which norm it has
    torch.save({k[6:]: v for k, v in state(classifier).items() if k.startswith("model.")}, weights)
    command = ["configs/vit_ti.yaml", *small, "norm.name=dyt", f"model.init_from={weights}",
               "model.init_from_norms=calibrate", "trainer.checkpoint_every_n_steps=5",
               "name=run"]  # fmt: skip
    result = forked("tools/train.py", *command, f"output_dir={tmp_path / 'whole'}")
    assert "5 of 5 norms fitted" in result.stdout
    killed = [*command, f"output_dir={tmp_path}", "--resume"]
    kill(killed, saves=4)
    weights.rename(tmp_path / "moved.pth")
    result = forked("tools/train.py", *killed)
    assert "norms fitted" not in result.stdout
    assert_same_training(tmp_path / "whole" / "run", tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.init_from_norms=calibrte"], "did you mean 'calibrate'"),
        (["model.init_from_norms=calibrate"], "of no weights; give model.init_from"),
    ],
)
def test_a_wrong_value_and_one_without_effect_are_refused(
    forked, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = forked(
        "tools/train.py", "configs/vit_ti.yaml", *arguments, f"output_dir={tmp_path}", code=2
    )
    assert message in result.stderr
    assert not list(tmp_path.iterdir())
