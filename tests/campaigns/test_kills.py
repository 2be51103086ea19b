"""Runs that are killed again and again end as one that nothing disturbed, bit for bit."""

import random
from pathlib import Path

import pytest

# 30 steps in three epochs, saved every second
RECIPE = [
    "configs/norm/seednorm.yaml", "model.embed_dim=48", "model.depth=2", "model.num_heads=3",
    "norm.options={num_heads: 4, coefficient_dropout: 0.1}", "ema.decay=0.9",
    "data.train_fraction=0.26", "trainer.epochs=3", "trainer.batch_size_total=32",
    "trainer.checkpoint_every_n_steps=2", "trainer.diagnostics_every_n_steps=4",
    "trainer.log_every_n_steps=2", "trainer.val_every_n_epochs=1", "trainer.progress_bar=false",
    "optim.warmup_epochs=1", "name=run",
]  # fmt: skip
TASKS = {
    "classify": ["configs/vit_ti.yaml"],
    "mae": [
        "configs/mae_ti.yaml", "mae.decoder_embed_dim=32", "mae.decoder_num_heads=2",
        "mae.knn_every_n_epochs=1",
    ],
    "dit": ["configs/dit_b4.yaml", "dit.sample_every_n_steps=10", "dit.sample_steps=2"],
}  # fmt: skip
MOMENTS = ("later", "rename", "write", "previous", "table", "diagnostics")


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_that_is_killed_again_and_again_loses_nothing(
    task: str, workers: int, number, forked, kill, assert_same_training, tmp_path: Path
) -> None:
    if number(0, 1) == 0 and (task == "mae") != (workers == 2):
        pytest.skip("of the short campaign, workers are in that of MAE alone")
    arguments = [*TASKS[task], *RECIPE, f"data.num_workers={workers}"]
    whole = tmp_path / "whole" / "run"
    forked("tools/train.py", *arguments, f"output_dir={whole.parent}")
    chosen = random.Random(f"{task} {workers}")
    moments = list(MOMENTS)
    chosen.shuffle(moments)
    for attempt in range(number(1, 3)):
        run = tmp_path / str(attempt) / "run"
        again = [*arguments, f"output_dir={run.parent}", "--resume"]
        # with two saves to each kill, a run has time for six
        for moment in moments[: number(1, 6)]:
            kill(again, saves=2, moment=moment)
        forked("tools/train.py", *again)
        assert_same_training(whole, run)
        for table in ("diagnostics.csv",):
            assert (run / table).read_bytes() == (whole / table).read_bytes()
        assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in whole.iterdir())
        assert not list(run.rglob("*.tmp"))
