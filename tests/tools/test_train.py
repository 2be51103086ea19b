"""`tools/train.py` through its command line, on real digits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
CONFIG = ("configs/vit_ti.yaml", "configs/norm/seednorm.yaml")


def test_help_teaches(tool) -> None:
    text = tool("train", "--help").stdout
    assert "configs/vit_b_seednorm.yaml" in text
    assert "--resume" in text


def test_print_config_shows_the_resolved_config_and_stops(forked, tmp_path: Path) -> None:
    arguments = [*CONFIG, "optim.lr=0.125", f"output_dir={tmp_path}", "--print-config"]
    result = forked("tools/train.py", *arguments)
    assert "lr: 0.125" in result.stdout
    assert "name: vit_ti_seednorm" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["configs/norm/sednorm.yaml"], "did you mean configs/norm/seednorm.yaml"),
        ([*CONFIG, "optim.lrr=1"], "unknown key 'optim.lrr'"),
        ([*CONFIG, "optim.lr=fast"], "optim.lr = 'fast': expected a number"),
        ([*CONFIG, "norm.name=seednrm"], "did you mean 'seednorm'"),
        ([*CONFIG, "configs/data/imagenet.yaml"], "data.root"),
        ([*CONFIG, "configs/data/imagenet.yaml", "data.root=/no/such/folder"], "/no/such/folder"),
        # these need torch or timm to be found out
        ([*CONFIG, "data.img_size=10"], "8 or 12"),
        ([*CONFIG, "model.num_heads=5"], "model.num_heads = 5"),
        ([*CONFIG, "norm.options.num_heads=7"], "num_heads=7"),
        ([*CONFIG, "mix.mixup=1", "trainer.batch_size_total=63"], "in multiples of 2"),
        ([*CONFIG, "norm.options.num_head=4"], "num_heads"),
        ([*CONFIG, "optim.opt=adamww"], "did you mean 'adamw'"),
        ([*CONFIG, "trainer.batch_size_total=1258"], "trainer.batch_size_total = 1258"),
        ([*CONFIG, "model.init_from=nowhere.ckpt"], "nowhere.ckpt"),
    ],
)
def test_bad_input_ends_with_one_line_and_code_2(
    forked, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    result = forked("tools/train.py", *arguments, f"output_dir={tmp_path}", code=2)
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


def test_an_existing_run_is_not_overwritten(forked, small, trained: Path) -> None:
    before = (trained / "last.ckpt").stat().st_mtime_ns
    arguments = [*CONFIG, *small, f"output_dir={trained.parent}", "name=trained"]
    result = forked("tools/train.py", *arguments, code=2)
    assert "--resume" in result.stderr
    assert (trained / "last.ckpt").stat().st_mtime_ns == before


def test_a_finished_run_has_nothing_to_resume(forked, trained: Path) -> None:
    result = forked("tools/train.py", trained / "config.yaml", "--resume")
    assert "finished already" in result.stdout
    assert "test/top1" in result.stdout


def test_resume_refuses_another_configuration(forked, trained: Path) -> None:
    arguments = [trained / "config.yaml", "optim.lr=0.5", "--resume"]
    result = forked("tools/train.py", *arguments, code=2)
    assert "optim.lr = 0.5" in result.stderr
    assert "0.002" in result.stderr


def test_fine_tuning_starts_from_a_run(forked, small, trained: Path, tmp_path: Path) -> None:
    arguments = [*CONFIG, *small, "norm.options.num_heads=4", f"output_dir={tmp_path}"]
    result = forked("tools/train.py", *arguments, "trainer.epochs=1", f"model.init_from={trained}")
    assert "tensors loaded" in result.stdout
    summary = json.loads((tmp_path / "vit_ti_seednorm" / "summary.json").read_text())
    start = json.loads((trained / "summary.json").read_text())
    assert summary["metrics"]["test/top1"] > start["metrics"]["test/top1"] - 5
    refused = forked(
        "tools/train.py", "configs/vit_ti.yaml", "norm.name=dyt",
        *small, f"output_dir={tmp_path}",
        f"model.init_from={trained}", code=2,
    )  # fmt: skip
    assert "norm.name" in refused.stderr


def test_a_norm_of_ones_own_is_one_decorated_class(forked, small, tmp_path: Path) -> None:
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
    forked("tools/train.py", config, *small, "trainer.epochs=1", f"output_dir={tmp_path}")
    summary = json.loads((tmp_path / "mine" / "summary.json").read_text())
    assert summary["norm"] == "scale_only"


def test_a_diverging_run_stops_with_code_3(forked, small, tmp_path: Path) -> None:
    result = forked(
        "tools/train.py", "configs/vit_ti.yaml", "norm.name=layernorm",
        *small, f"output_dir={tmp_path}",
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


def test_a_corrupt_image_stops_the_run_by_path_or_is_counted(forked, small, tmp_path: Path) -> None:
    root = image_folder(tmp_path / "images")
    broken = root / "train" / "class1" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    arguments = [
        *CONFIG, "configs/data/imagefolder.yaml", *small, "norm.options.num_heads=4",
        f"data.root={root}", "data.img_size=16", "model.patch_size=8", "data.num_workers=1",
        "trainer.batch_size_total=4", f"output_dir={tmp_path / 'runs'}",
    ]  # fmt: skip
    result = forked("tools/train.py", *arguments, code=2)
    assert f"{broken}" in result.stderr
    assert "data.on_corrupt=skip" in result.stderr
    assert "Traceback" not in result.stderr
    skipping = forked("tools/train.py", *arguments, "data.on_corrupt=skip", "name=skipping")
    assert "skipped" in skipping.stdout


@pytest.mark.slow
def test_resume_after_sigkill_is_bit_exact(
    tool, forked, kill, assert_same_training, small, tmp_path: Path
) -> None:
    arguments = [
        *CONFIG, *small, "trainer.epochs=4", "data.train_fraction=0.5",
        "norm.options={num_heads: 4, coefficient_dropout: drop_path}",
        "trainer.batch_size_device=16", "trainer.checkpoint_every_n_steps=3",
        "trainer.log_every_n_steps=2", "data.augment.re_prob=0.3",
        "data.augment.auto_augment=rand-m5", "model.drop_path_rate=0.2", "model.drop_rate=0.1",
        "mix.mixup=0.4", "mix.cutmix=1.0",
    ]  # fmt: skip
    forked("tools/train.py", *arguments, f"output_dir={tmp_path / 'whole'}", "name=run")
    killed = [*arguments, f"output_dir={tmp_path / 'killed'}", "name=run", "--resume"]
    folder = tmp_path / "killed" / "run"
    kill(killed, saves=2, moment="rename")
    kill([*killed, "data.num_workers=2"], saves=8)
    last = folder / "last.ckpt"
    if last.exists():  # not where the kill came between the two renames of a save
        content = bytearray(last.read_bytes())
        content[len(content) // 2] ^= 1  # among the weights: the checkpoint before it must serve
        last.write_bytes(content)
    before = torch.load(folder / "previous.ckpt", weights_only=True)["global_step"]
    kill(killed, saves=2, kind="SIGTERM")
    output = tool("train", *killed, "data.num_workers=1").stdout
    assert "resume  skips" not in output  # the SIGTERM saved a whole one
    starts = json.loads((folder / "environment.json").read_text())
    resumed = [start["resumed_from_step"] for start in starts]
    assert resumed[:3] == [None, 3, before]
    steps = 4 * (1257 // 2 // 32)
    assert before < resumed[3] < steps
    assert_same_training(tmp_path / "whole" / "run", folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == steps


def test_the_same_seed_gives_the_same_result(forked, small, tmp_path: Path) -> None:
    metrics = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        forked(
            "tools/train.py", *CONFIG, *small, "norm.options.num_heads=4", "trainer.epochs=1",
            f"output_dir={tmp_path}", f"name={name}", f"seed={seed}",
        )  # fmt: skip
        metrics.append(json.loads((tmp_path / name / "summary.json").read_text())["metrics"])
    for values in metrics:
        values.pop("train/images_per_sec", None)
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]


def test_killed_processes_leave_no_half_written_checkpoint(trained: Path) -> None:
    # a file that was cut short is refused with its name, not loaded in part
    from vision.checkpoints.read import read_checkpoint

    whole = (trained / "last.ckpt").read_bytes()
    cut = trained.parent / "cut.ckpt"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.ckpt"):
        read_checkpoint(cut)
    cut.unlink()


@pytest.mark.slow
def test_two_processes_judge_each_image_once(forked, small, tmp_path: Path) -> None:
    forked(  # the second process is a new one
        "tools/train.py", *CONFIG, *small, "norm.options.num_heads=4", "trainer.epochs=1",
        f"output_dir={tmp_path}", "name=ddp",
        "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu",
    )  # fmt: skip
    summary = json.loads((tmp_path / "ddp" / "summary.json").read_text())
    assert summary["steps"] == 1257 // 32  # the batch is that of all processes
    forked("tools/evaluate.py", tmp_path / "ddp")
    figures = json.loads((tmp_path / "ddp" / "evaluate_test.json").read_text())
    assert figures["images"] == 360  # 180 for each process, in batches of 16: the last is short
    assert summary["metrics"]["test/top1"] == pytest.approx(figures["top1"], abs=1e-4)
    assert summary["metrics"]["test/loss"] == pytest.approx(figures["loss"], rel=1e-4)
