"""Every norm there is trains a ViT-Ti of two blocks on digits."""

import json
from pathlib import Path

import pytest

from vision.norms import list_norms

RECIPE = [
    "configs/vit_ti.yaml", "model.depth=2", "optim.lr=2e-3", "trainer.epochs=12",
    "trainer.val_every_n_epochs=12", "trainer.progress_bar=false",
]  # fmt: skip
# learns slowly: its factor 1/√D makes the outputs of all layers small
LONGER = {"batch_layernorm": ["trainer.epochs=30", "trainer.val_every_n_epochs=30"]}


@pytest.mark.slow
@pytest.mark.parametrize("norm", list_norms())
def test_a_small_vit_learns_digits(norm: str, forked, settings_of, tmp_path: Path) -> None:
    settings = [*RECIPE, *settings_of(norm), *LONGER.get(norm, [])]
    forked("tools/train.py", *settings, f"output_dir={tmp_path}", "name=run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"]["test/top1"] > 90
