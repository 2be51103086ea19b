"""Every norm there is trains a ViT-Ti of two blocks on digits."""

import json
from pathlib import Path

import pytest

from vision.norms import list_norms

RECIPE = [
    "configs/vit_ti.yaml", "model.depth=2", "model.embed_dim=96", "optim.lr=3e-3",
    "trainer.batch_size_total=32", "trainer.val_every_n_epochs=30", "trainer.progress_bar=false",
]  # fmt: skip
# of those that learn slowly; batch_layernorm's factor 1/√D makes the outputs of all layers small
EPOCHS = {"batch_layernorm": 20, "bhyt": 12, "derf": 14, "dyt": 14, "isru": 14, "onlinenorm": 12}


@pytest.mark.slow
@pytest.mark.parametrize("norm", list_norms())
def test_a_small_vit_learns_digits(norm: str, forked, settings_of, tmp_path: Path) -> None:
    settings = [*RECIPE, *settings_of(norm), f"trainer.epochs={EPOCHS.get(norm, 8)}"]
    forked("tools/train.py", *settings, f"output_dir={tmp_path}", "name=run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"]["test/top1"] > 90
