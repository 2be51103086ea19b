"""What is refused when data and processes do not fit, before a run is made."""

from pathlib import Path

import pytest

from vision.config import load_config
from vision.training.train import open_data

ROOT = Path(__file__).parents[2]


def test_a_split_with_fewer_images_than_processes_is_refused() -> None:
    overrides = ["trainer.devices=200", "trainer.batch_size_total=400", "data.num_workers=0"]
    config = load_config([str(ROOT / "configs/vit_ti.yaml")], overrides).config
    with pytest.raises(ValueError, match=r"data.val_split = validation: has 180 images for 200"):
        open_data(config)
