"""Every precision trains every task through the command line, with its average in float32."""

import json
import math
from pathlib import Path

import pytest
import torch

DECODER = ["mae.decoder_embed_dim=32", "mae.decoder_num_heads=2", "mae.knn_every_n_epochs=1"]
TASKS = {
    "classify": ["configs/vit_ti.yaml"],
    "mae": ["configs/mae_ti.yaml", *DECODER],
    "dit": ["configs/dit_b4.yaml", "dit.sample_every_n_steps=2", "dit.sample_steps=2"],
}
DTYPES = {"bf16-true": torch.bfloat16, "64-true": torch.float64}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "precision"),
    [("mae", "bf16-true"), ("mae", "64-true"), ("dit", "bf16-true"), ("classify", "bf16-true")],
)
def test_a_run_is_saved_in_its_precision_and_its_average_in_no_smaller_one(
    task: str, precision: str, forked, small: list[str], tmp_path: Path
) -> None:
    config, *own = TASKS[task]
    length = ["trainer.epochs=null", "trainer.max_steps=4", "optim.warmup_epochs=0"]
    average = ["ema.decay=0.999", "ema.warmup=false", "norm.name=layernorm"]
    where = [f"output_dir={tmp_path}", "name=run", f"trainer.precision={precision}"]
    where += ["trainer.accelerator=cpu", "data.train_fraction=0.2"]
    done = forked("tools/train.py", config, *small, *own, *length, *average, *where)
    assert "There are modules in" not in done.stdout + done.stderr  # diffusers', of no modules
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    weights = {k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")}
    averages = {k.removeprefix("ema.module."): v for k, v in state.items() if "ema.module" in k}
    assert weights.keys() == averages.keys() and weights
    apart = {k for k, v in weights.items() if not torch.equal(averages[k].to(v.dtype), v)}
    for name, tensor in weights.items():
        assert tensor.dtype == DTYPES[precision], name
        assert averages[name].dtype in (torch.float32, torch.float64), name
        if name in apart:  # steps of a thousandth would be lost by rounding to bfloat16
            assert not torch.equal(averages[name], averages[name].bfloat16().to(tensor.dtype)), name
    assert apart
    metrics = json.loads((tmp_path / "run" / "summary.json").read_text())["metrics"]
    assert metrics and all(math.isfinite(value) for value in metrics.values())
