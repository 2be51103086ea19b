"""Placements of norms and residual forms through the command line."""

import json
from pathlib import Path

import pytest
import torch

from vision.checkpoints.export import load_exported
from vision.evaluation.classifier import load_classifier


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [["model.residual=fixup"], ["model.norm_placement=peri", "model.qk_norm=true"]],
    ids=["fixup", "peri"],
)
def test_resume_after_sigkill_is_bit_exact_and_the_run_is_exported(
    forked, kill, assert_same_training, small, tmp_path: Path, settings: list[str]
) -> None:
    arguments = [
        "configs/vit_ti.yaml", *small, *settings, "model.drop_path_rate=0.2",
        "trainer.checkpoint_every_n_steps=3", "name=run",
    ]  # fmt: skip
    printed = forked("tools/train.py", *arguments, f"output_dir={tmp_path / 'whole'}").stdout
    value = settings[0].partition("=")[2]
    said = {
        "fixup": "residual fixup: no norms in the blocks, norm.name is that of the others",
        "peri": "norms placed peri",
    }
    assert f"blocks  {said[value]}\n" in printed
    killed = [*arguments, f"output_dir={tmp_path / 'killed'}", "--resume"]
    kill(killed, saves=3)
    forked("tools/train.py", *killed)
    starts = json.loads((tmp_path / "killed" / "run" / "environment.json").read_text())
    assert [start["resumed_from_step"] is None for start in starts] == [True, False]
    assert_same_training(tmp_path / "whole" / "run", tmp_path / "killed" / "run")

    run = tmp_path / "whole" / "run"
    forked("tools/evaluate.py", run, "--export", tmp_path / "exported")
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exported = load_exported(tmp_path / "exported")(images)
        assert torch.equal(exported, load_classifier(run).model(images))


@pytest.mark.slow
def test_fine_tuning_takes_blocks_of_the_same_kind(forked, small, tmp_path: Path) -> None:
    pretrain = [
        "configs/mae_ti.yaml", *small, "trainer.epochs=1", "mae.decoder_embed_dim=32",
        "mae.decoder_num_heads=2", "mae.knn_every_n_epochs=null", "model.residual=rescale",
        "mae.pictures_every_n_epochs=null", f"output_dir={tmp_path}", "name=mae",
    ]  # fmt: skip
    forked("tools/train.py", *pretrain)
    tune = [
        "configs/mae_ti_finetune.yaml", *small, "trainer.batch_size_total=24",
        f"model.init_from={tmp_path / 'mae'}", f"output_dir={tmp_path}", "name=tuned",
    ]  # fmt: skip
    refused = forked("tools/train.py", *tune, code=2)
    assert "its blocks have model.residual=rescale, the model's standard" in refused.stderr
    assert not (tmp_path / "tuned" / "last.ckpt").exists()
    result = forked("tools/train.py", *tune, "model.residual=rescale")
    assert "missing 4: fc_norm.bias, fc_norm.weight, head.bias, head.weight" in result.stdout
