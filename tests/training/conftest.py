"""Narrow models of every task, trained on digits in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl

from vision.config.load import load_config
from vision.tasks.base import VisionTask
from vision.training.train import create_task, open_data
from vision.training.trainer import make_trainer, task_callbacks

ROOT = Path(__file__).parents[2]
NARROW = [
    "model.embed_dim=32", "model.depth=1", "model.num_heads=2", "norm.options.num_heads=4",
    "ema.decay=0.9", "optim.warmup_epochs=0", "data.num_workers=0",
    "trainer.epochs=1", "trainer.batch_size_total=32", "trainer.progress_bar=false",
]  # fmt: skip
CONFIGS = {
    "classify": ["vit_ti.yaml"],
    "mae": [
        "mae_ti.yaml", "mae.decoder_embed_dim=32", "mae.decoder_depth=1",
        "mae.decoder_num_heads=2",
    ],
    "dit": ["dit_b4.yaml"],
}  # fmt: skip

Fit = Callable[..., tuple[pl.Trainer, VisionTask]]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Train a task with some overrides for some steps and validate; callbacks watch it."""

    def train(
        name: str, *overrides: str, steps: int = 2, callbacks: list[pl.Callback] | None = None
    ) -> tuple[pl.Trainer, VisionTask]:
        config, *own = CONFIGS[name]
        files = [ROOT / "configs" / config, ROOT / "configs/norm/seednorm.yaml"]
        # digits has some 1240 images to train with
        fraction = f"data.train_fraction={32 * (steps + 0.5) / 1240}"
        loaded = load_config(files, [*NARROW, *own, fraction, *overrides]).config
        pl.seed_everything(0, verbose=False)
        data, accumulate = open_data(loaded)
        task = create_task(loaded, data)
        own = task_callbacks(task.config, tmp_path)
        trainer = make_trainer(task, tmp_path, [*own, *(callbacks or [])], accumulate, [], None)
        trainer.fit(task, data)
        return trainer, task

    return train
