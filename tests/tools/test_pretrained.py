"""timm's weights as a start: from the hub's cache by `model.pretrained`, or from a file of them."""

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "configs/vit_ti.yaml", "model.name=test_vit", "model.patch_size=16", "data.img_size=32",
    "trainer.max_steps=2", "optim.warmup_epochs=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the hub that holds weights of timm's test_vit."""
    cache = tmp_path_factory.mktemp("hub")
    model = timm.create_model("test_vit")
    folder = cache / "hub" / f"models--{model.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1" * 40)
    snapshot = folder / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    return cache


@pytest.fixture(scope="module")
def start(environment: dict[str, str], cache: Path):
    """Run tools/train.py from timm's weights, with that cache and no network."""
    alone = environment | {"HF_HOME": str(cache), "HF_HUB_OFFLINE": "1"}

    def run(*arguments: object) -> subprocess.CompletedProcess:
        asked = [*SETTINGS, "model.pretrained=true", "name=run", *map(str, arguments)]
        command = [sys.executable, "tools/train.py", *asked]
        return subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_a_run_starts_from_timms_weights_with_norms_of_its_own(
    start, cache: Path, forked, tmp_path: Path
) -> None:
    norms = ["norm.name=seednorm", "model.init_from_norms=carry_over"]
    done = start(*norms, f"output_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "scale and shift from LayerNorm to SeeDNorm" in done.stdout
    # those of digits are others
    assert "timm trained it with data.mean" in done.stdout or "patch_embed" in done.stdout
    assert (tmp_path / "run" / "summary.json").is_file()

    # a file of them, as README saves one, gives the same run
    (weights,) = cache.rglob("*.safetensors")
    torch.save(load_file(weights), tmp_path / "test_vit.pth")
    where = [f"model.init_from={tmp_path}/test_vit.pth", f"output_dir={tmp_path}", "name=file"]
    said = forked("tools/train.py", *SETTINGS, *norms, *where)
    assert "scale and shift from LayerNorm to SeeDNorm" in said.stdout
    run, file = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("run", "file")
    )
    assert run.keys() == file.keys()
    assert all(torch.equal(tensor, file[name]) for name, tensor in run.items())


@pytest.mark.slow
def test_what_cannot_be_had_is_said_in_a_line_before_there_is_a_run(start, tmp_path: Path) -> None:
    where = f"output_dir={tmp_path}"
    done = start("norm.name=layernorm", "model.name=test_vit2", where)
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert line.startswith("error: command line: model.pretrained = true: the weights of test_vit2")
    assert line.endswith("or name a file of them with model.init_from")


@pytest.mark.parametrize(
    ("config", "more", "message"),
    [
        ("vit_ti", ["model.name=vit_base_patch16_gap_224"], "no weights for"),
        ("vit_ti", ["model.init_from=a.ckpt"], "the weights are those of model.init_from = a.ckpt"),
        ("mae_ti", [], "task mae has no use for it"),
        ("dit_b4", [], "task dit has no use for it"),
    ],
)
def test_it_is_refused_where_it_means_nothing(
    config: str, more: list[str], message: str, forked, tmp_path: Path
) -> None:
    where = ["model.pretrained=true", f"output_dir={tmp_path}", "name=run"]
    said = forked("tools/train.py", f"configs/{config}.yaml", *more, *where, code=2)
    assert message in said.stderr.splitlines()[-1]
    assert not (tmp_path / "run").exists()
