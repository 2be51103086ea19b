"""`tools/train.py` through its command line, on real digits."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = "configs/vit_ti_seednorm.yaml"


def test_help_teaches(tool) -> None:
    text = tool("train", "--help").stdout
    assert "configs/vit_b_seednorm.yaml" in text
    assert "--resume" in text


def test_print_config_shows_the_resolved_config_and_stops(tool, tmp_path: Path) -> None:
    result = tool("train", CONFIG, "optim.lr=0.125", f"output_dir={tmp_path}", "--print-config")
    assert "lr: 0.125" in result.stdout
    assert "name: vit_ti_seednorm" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["configs/vit_ti_sednorm.yaml"], "did you mean configs/vit_ti_seednorm.yaml"),
        ([CONFIG, "optim.lrr=1"], "unknown key 'optim.lrr'"),
        ([CONFIG, "optim.lr=fast"], "optim.lr = 'fast': expected a number"),
        ([CONFIG, "data.img_size=10"], "8 or 12"),
        ([CONFIG, "norm.name=seednrm"], "did you mean 'seednorm'"),
        ([CONFIG, "model.num_heads=5"], "model.num_heads = 5"),
        ([CONFIG, "norm.options.num_heads=7"], "num_heads = 7"),
        ([CONFIG, "configs/data/imagenet.yaml"], "data.root"),
        ([CONFIG, "configs/data/imagenet.yaml", "data.root=/no/such/folder"], "/no/such/folder"),
        # these need torch or timm to be found out
        ([CONFIG, "norm.options.num_head=4"], "num_heads"),
        ([CONFIG, "optim.opt=adamww"], "did you mean 'adamw'"),
        ([CONFIG, "trainer.batch_size_total=1258"], "trainer.batch_size_total = 1258"),
        ([CONFIG, "model.init_from=nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(
    tool, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    result = tool("train", *arguments, f"output_dir={tmp_path}", code=2)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert expected in lines[0]
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_everything_a_reader_needs(trained: Path) -> None:
    files = {path.name for path in trained.iterdir()}
    assert files >= {
        "config.yaml",
        "environment.json",
        "metrics.csv",
        "tensorboard",
        "last.ckpt",
        "best.ckpt",
        "curves.png",
        "summary.json",
    }
    assert not [name for name in files if name.endswith(".tmp")]
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["task"] == "classify"
    assert summary["norm"] == "seednorm"
    assert summary["seed"] == 0
    assert summary["parameters"] > 50_000
    assert summary["wall_seconds"] > 0
    assert summary["steps"] == 8 * (1257 // 32)
    # a chance level of 10 %: two narrow blocks learn within eight epochs
    assert summary["metrics"]["test/top1"] > 60
    assert {"test/ema_top1", "test/top5", "test/loss", "val/top1"} <= summary["metrics"].keys()
    start = json.loads((trained / "environment.json").read_text())[0]
    assert start["packages"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert start["resumed_from_step"] is None
    assert Image.open(trained / "curves.png").size[0] > 800


def test_an_existing_run_is_not_overwritten(tool, small, trained: Path) -> None:
    before = (trained / "last.ckpt").stat().st_mtime_ns
    arguments = [CONFIG, *small, f"output_dir={trained.parent}", "name=trained"]
    result = tool("train", *arguments, code=2)
    assert "--resume" in result.stderr
    assert (trained / "last.ckpt").stat().st_mtime_ns == before


def test_a_finished_run_has_nothing_to_resume(tool, trained: Path) -> None:
    result = tool("train", trained / "config.yaml", "--resume")
    assert "finished already" in result.stdout
    assert "test/top1" in result.stdout


def test_resume_refuses_another_configuration(tool, trained: Path) -> None:
    result = tool("train", trained / "config.yaml", "optim.lr=0.5", "--resume", code=2)
    assert "optim.lr = 0.5" in result.stderr
    assert "0.002" in result.stderr


def test_fine_tuning_starts_from_a_run(tool, small, trained: Path, tmp_path: Path) -> None:
    arguments = [*small, "norm.options.num_heads=4", f"output_dir={tmp_path}"]
    result = tool("train", CONFIG, *arguments, "trainer.epochs=1", f"model.init_from={trained}")
    assert "tensors loaded" in result.stdout
    summary = json.loads((tmp_path / "vit_ti_seednorm" / "summary.json").read_text())
    start = json.loads((trained / "summary.json").read_text())
    assert summary["metrics"]["test/top1"] > start["metrics"]["test/top1"] - 5
    refused = tool(
        "train", "configs/vit_ti_dyt.yaml", *small, f"output_dir={tmp_path}",
        f"model.init_from={trained}", code=2,
    )  # fmt: skip
    assert "norm.name" in refused.stderr


def test_a_norm_of_ones_own_is_one_decorated_class(tool, small, tmp_path: Path) -> None:
    (tmp_path / "my_norms.py").write_text(
        "import torch\n"
        "from vision.norms import register_norm\n"
        "@register_norm('scale_only')\n"
        "class ScaleOnly(torch.nn.Module):\n"
        "    decayed = frozenset({'scale'})\n"
        "    def __init__(self, dim, start=1.0):\n"
        "        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.full((dim,), start))\n"
        "    def forward(self, x):\n"
        "        return x * self.scale\n"
    )
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"base: {ROOT}/configs/vit_ti.yaml\n"
        "norm: {name: scale_only, module: my_norms.py, options: {start: 0.5}}\n"
    )
    tool("train", config, *small, "trainer.epochs=1", f"output_dir={tmp_path}")
    summary = json.loads((tmp_path / "mine" / "summary.json").read_text())
    assert summary["norm"] == "scale_only"


def test_a_diverging_run_stops_with_code_3(tool, small, tmp_path: Path) -> None:
    result = tool(
        "train", "configs/vit_ti_layernorm.yaml", *small, f"output_dir={tmp_path}",
        "optim.lr=1e30", "optim.clip_grad=null", "trainer.log_every_n_steps=1", code=3,
    )  # fmt: skip
    assert "optim.lr" in result.stderr


def image_folder(root: Path, classes: int = 2, count: int = 8) -> Path:
    noise = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(classes):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def test_a_corrupt_image_stops_the_run_by_path_or_is_counted(tool, small, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    broken = root / "train" / "class1" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = [
        CONFIG, "configs/data/imagefolder.yaml", *small, "norm.options.num_heads=4",
        f"data.root={root}", "data.img_size=16", "model.patch_size=8", "data.num_workers=1",
        "trainer.batch_size_total=4", f"output_dir={tmp_path / 'runs'}",
    ]  # fmt: skip
    result = tool("train", *arguments, code=2)
    assert f"{broken}" in result.stderr
    assert "data.on_corrupt=skip" in result.stderr
    assert "Traceback" not in result.stderr
    skipping = tool("train", *arguments, "data.on_corrupt=skip", "name=skipping")
    assert "skipped" in skipping.stdout


def kill_after_saves(
    command: list[str],
    environment: dict,
    last: Path,
    saves: int,
    kind: signal.Signals = signal.SIGKILL,
) -> int:
    """Start `command`, kill it at no moment in particular after `saves` checkpoints; its code."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seen, stamp, deadline = 0, None, time.monotonic() + 240
    while seen < saves:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        now = last.stat().st_mtime_ns if last.exists() else stamp
        seen, stamp = seen + (now != stamp), now
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(kind)
    return process.wait(60)


@pytest.mark.slow
def test_resume_after_sigkill_is_bit_exact(
    tool, small, environment: dict[str, str], tmp_path: Path
) -> None:
    arguments = [
        CONFIG, *small, "trainer.epochs=4", "norm.options={num_heads: 4, dropout: 0.1}",
        "trainer.batch_size_device=16", "trainer.checkpoint_every_n_steps=3",
        "trainer.log_every_n_steps=2", "data.augment.re_prob=0.3",
        "data.augment.auto_augment=rand-m5", "model.drop_path_rate=0.2", "model.drop_rate=0.1",
        "mix.mixup=0.4", "mix.cutmix=1.0",
    ]  # fmt: skip
    tool("train", *arguments, f"output_dir={tmp_path / 'whole'}", "name=run")
    killed = [*arguments, f"output_dir={tmp_path / 'killed'}", "name=run", "--resume"]
    last = tmp_path / "killed" / "run" / "last.ckpt"
    command = [sys.executable, "tools/train.py", *killed]
    kill_after_saves(command, environment, last, saves=2)
    kill_after_saves([*command, "data.num_workers=2"], environment, last, saves=8)
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1  # among the weights: the checkpoint before it must serve
    last.write_bytes(content)
    # the file that is there counts as the first
    code = kill_after_saves(command, environment, last, saves=3, kind=signal.SIGTERM)
    assert code == 75
    output = tool("train", *killed, "data.num_workers=1").stdout
    assert "passes over" not in output  # the SIGTERM saved a whole one

    a, b = (
        torch.load(tmp_path / kind / "run" / "last.ckpt", weights_only=True)
        for kind in ("whole", "killed")
    )
    assert a["global_step"] == b["global_step"] == 4 * (1257 // 32)
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    moments = [c["optimizer_states"][0]["state"] for c in (a, b)]
    for index, state in moments[0].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, moments[1][index][name]), (index, name)
    rows = [
        list(csv.DictReader((tmp_path / kind / "run" / "metrics.csv").open()))
        for kind in ("whole", "killed")
    ]
    for row in rows[0] + rows[1]:
        row.pop("train/images_per_sec")
    assert rows[0] == rows[1]
    starts = json.loads((tmp_path / "killed" / "run" / "environment.json").read_text())
    resumed = [start["resumed_from_step"] for start in starts]
    assert [step is None for step in resumed] == [True, False, False, False]
    assert resumed[2] % 3 == 0 or resumed[2] % 39 == 0  # that of previous.ckpt


def test_the_same_seed_gives_the_same_result(tool, small, tmp_path: Path) -> None:
    metrics = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        tool(
            "train", CONFIG, *small, "norm.options.num_heads=4", "trainer.epochs=1",
            f"output_dir={tmp_path}", f"name={name}", f"seed={seed}",
        )  # fmt: skip
        metrics.append(json.loads((tmp_path / name / "summary.json").read_text())["metrics"])
    for values in metrics:
        values.pop("train/images_per_sec", None)
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]


def test_killed_processes_leave_no_half_written_checkpoint(trained: Path) -> None:
    # a file that was cut short is refused with its name, not loaded in part
    from vision.models.weights import read_checkpoint

    whole = (trained / "last.ckpt").read_bytes()
    cut = trained.parent / "cut.ckpt"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.ckpt"):
        read_checkpoint(cut)
    cut.unlink()


@pytest.mark.slow
def test_two_processes_judge_each_image_once(tool, small, tmp_path: Path) -> None:
    tool(
        "train", CONFIG, *small, "norm.options.num_heads=4", f"output_dir={tmp_path}", "name=ddp",
        "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu",
    )  # fmt: skip
    summary = json.loads((tmp_path / "ddp" / "summary.json").read_text())
    assert summary["steps"] == 2 * (1257 // 32)  # the batch is that of all processes
    tool("evaluate", tmp_path / "ddp")
    figures = json.loads((tmp_path / "ddp" / "evaluate_test.json").read_text())
    assert figures["images"] == 360  # 180 for each process, in batches of 16: the last is short
    assert summary["metrics"]["test/top1"] == pytest.approx(figures["top1"], abs=1e-4)
    assert summary["metrics"]["test/loss"] == pytest.approx(figures["loss"], rel=1e-4)
