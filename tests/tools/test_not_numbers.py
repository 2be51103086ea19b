"""What is no number: given where one is expected, or found in one sample of a metric."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# white is infinite with it, black is 0
OVERFLOWING = [
    "data.mean=[0]",
    "data.std=[1e-39]",
    "data.in_chans=1",
    "data.img_size=8",
    "model.patch_size=4",
]


@pytest.fixture(scope="module")
def one_white(tmp_path_factory) -> Path:
    """Black images of two classes; in the validation split two of each, and three white ones."""
    root = tmp_path_factory.mktemp("images")
    for folder, black, white in (
        ("train/a", 8, 0),
        ("train/b", 8, 0),
        ("val/a", 2, 2),
        ("val/b", 2, 1),
    ):
        (root / folder).mkdir(parents=True)
        for index in range(black + white):
            Image.new("L", (8, 8), 255 * (index >= black)).save(root / folder / f"{index}.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "more"),
    [
        ("configs/vit_ti.yaml", []),
        (
            "configs/mae_ti.yaml",
            ["mae.norm_pix_loss=false", "mae.decoder_depth=1", "mae.knn_every_n_epochs=1"],
        ),
    ],
)
def test_a_sample_whose_loss_is_nan_shows_in_the_mean(
    config: str, more: list[str], forked, small: list[str], one_white: Path, tmp_path: Path
) -> None:
    data = [
        "data.name=folder",
        f"data.root={one_white}",
        "data.val_split=val",
        "data.test_split=val",
        *OVERFLOWING,
    ]
    length = [
        "trainer.epochs=1",
        "trainer.val_every_n_epochs=1",
        "trainer.batch_size_total=8",
        "data.num_workers=0",
    ]
    where = [f"output_dir={tmp_path}", "name=run", "norm.name=layernorm"]
    forked("tools/train.py", config, *small, *data, *length, *where, *more)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert math.isnan(float(rows[-1]["val/loss"]))
    assert math.isfinite(float(rows[-1]["train/loss"]))
    if "mae" in config:
        assert float(rows[-1]["val/knn_top1"]) == pytest.approx(100 * 2 / 7)
    else:
        # of the black ones half are right, whichever class they are taken for; of the others none,
        # though the largest of numbers that are NaN is the first, class 0
        assert float(rows[-1]["val/top1"]) == pytest.approx(100 * 2 / 7)
        predictions = np.load(tmp_path / "run" / "test_predictions.npz")
        assert (predictions["target"] == predictions["predicted"]).sum() == 2
        forked("tools/evaluate.py", tmp_path / "run", "--output", tmp_path / "evaluated")
        (found,) = (tmp_path / "evaluated").glob("*.json")
        metrics = json.loads(found.read_text())
        assert metrics["loss"] is None, metrics  # JSON has no NaN
        assert metrics["top1"] == pytest.approx(100 * 2 / 7)
        assert np.trace(metrics["confusion"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["norm.name=dyt", "norm.options.alpha_init=big"], "alpha_init = 'big': expected a number"),
        (["norm.name=seednorm", "norm.options.num_heads=2.5"], "= 2.5: expected a whole number"),
        (["norm.name=seednorm", "norm.options.eps=yes"], "eps = True: expected a number"),
        (["norm.name=derf", "norm.options.shift_init=.nan"], "shift_init = nan: expected a number"),
        (["norm.name=derf", "norm.options.alpha_init=[1]"], "alpha_init = [1]: expected a number"),
        (["norm.name=layernorm", "norm.options.affine=maybe"], "'maybe': expected true or false"),
        (["norm.name=dyisru", "norm.options.c_init=D"], "'D': expected a number or null"),
    ],
)
def test_an_option_of_a_norm_is_of_its_kind(
    arguments: list[str], message: str, forked, small: list[str], tmp_path: Path
) -> None:
    where = [f"output_dir={tmp_path}", "name=run"]
    said = forked("tools/train.py", "configs/vit_ti.yaml", *small, *arguments, *where, code=2)
    (line,) = said.stderr.splitlines()
    assert line.startswith("error: command line: norm.options = ")
    assert message in line
    assert not (tmp_path / "run").exists()


def test_it_is_so_wherever_norms_are_made(forked, small_dit: list[str], tmp_path: Path) -> None:
    where = [f"output_dir={tmp_path}", "name=run"]
    dit = [*small_dit, "norm.options={num_heads: four}"]
    decoder = ["mae.decoder_norm=dyt", "mae.decoder_norm_options.alpha_init=big"]
    for tool, arguments, message in (
        ("train", [*dit, *where], "num_heads = 'four': expected a whole number"),
        ("train", ["configs/mae_ti.yaml", *decoder, *where], "alpha_init = 'big': expected a num"),
        ("anatomy", ["seednorm:alpha_init=big"], "alpha_init = 'big': expected a number"),
    ):
        said = forked(f"tools/{tool}.py", *arguments, code=2).stderr
        assert message in said and "Traceback" not in said
