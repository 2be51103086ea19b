"""The grids for ImageNet, planned and rehearsed on sets of its shape, with narrow models."""

import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
SHAPED = runpy.run_path(str(ROOT / "tests/imagenet_shaped.py"))
SEEDNORMS = ["seednorm_1", "seednorm_1_dropout", "seednorm_16", "seednorm_16_dropout"]
NORMS = ["layernorm", "rmsnorm", "dyt", "derf"]
NARROW = "model.embed_dim=48,model.depth=1,model.num_heads=3"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SHAPED["write_folder"](tmp_path_factory.mktemp("imagenet") / "set", train=1, val=8)


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen latents of each split, as tools/encode_latents.py writes them."""
    root = tmp_path_factory.mktemp("latents")
    index = {
        "shape": [4, 32, 32], "complete": True, "class_names": SHAPED["CLASSES"], "shards": [16],
    }  # fmt: skip
    for split in ("train", "validation"):
        (root / split).mkdir()
        parts = {name: torch.rand(16, 2, 4, 32, 32).half() for name in ("mean", "std")}
        file = root / split / "shard_00000.safetensors"
        save_file({**parts, "labels": torch.arange(16)}, file)
        (root / split / "index.json").write_text(json.dumps(index))
    return root


@pytest.mark.parametrize(
    ("grid", "data", "stages", "labels"),
    [
        ("vit_b", "folder", ["classify"], NORMS + SEEDNORMS),
        ("mae_b", "folder", ["mae", "finetune"], NORMS + SEEDNORMS),
        ("dit_b4", "latents", ["dit_trials", "dit"], [*NORMS, "seednorm_1", "seednorm_16"]),
    ],
)
def test_every_cell_of_a_grid_is_planned_and_takes_steps(
    forked, request, grid: str, data: str, stages: list[str], labels: list[str], tmp_path: Path
) -> None:
    root = request.getfixturevalue(data)
    size = "model.patch_size=8" + ",data.img_size=32" * (data == "folder")
    overrides = f"overrides=[data.root={root},data.num_workers=0,{NARROW},{size},"
    overrides += "trainer.batch_size_total=16,trainer.precision=32-true,mae.decoder_depth=1,"
    overrides += "mae.decoder_embed_dim=64]"
    call = ["tools/compare.py", f"configs/compare/imagenet_{grid}.yaml", f"output_dir={tmp_path}"]
    plan = forked(*call, overrides, "--plan").stdout
    measured = forked(*call, overrides, "--dry-run").stdout
    cells = [(f"{stage}, {label}", "3") for stage in stages for label in labels]
    for output in (plan, measured):
        assert re.findall(r"(?m)^\| (\w+, \w+) +\| +(\d+) \|", output) == cells
    assert re.search(r"in all [\d,]+ GPU hours", plan)
    assert "training alone: " in measured and not list(tmp_path.iterdir())
