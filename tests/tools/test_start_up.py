"""What `tools/train.py` loads before it trains, in an interpreter of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
# prints at the end which modules were imported, and whether the garbage collector works again
LOOK = """
import atexit, gc, runpy, sys
atexit.register(lambda: print(gc.isenabled(), gc.get_freeze_count() > 100_000, *sys.modules))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# of other tasks, data sets and tools
UNUSED = {
    "datasets", "diffusers", "mlxtend", "pandas", "pyarrow", "sklearn",
    "torch.distributed.checkpoint",
    "vision.compare", "vision.diffusion", "vision.evaluation", "vision.models.dit",
    "vision.models.mae", "vision.training.plan", "vision.training.preview",
}  # fmt: skip


@pytest.mark.parametrize("data", ["imagefolder", "digits"])
def test_training_on_images_loads_no_library_that_it_has_no_use_for(
    data: str, environment: dict[str, str], small: list[str], tmp_path: Path
) -> None:
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / place / "0.png")
    of_data = {
        "imagefolder": [f"data.root={tmp_path}", "data.img_size=32", "trainer.batch_size_total=2"],
        "digits": ["trainer.batch_size_total=1257"],
    }
    command = [
        sys.executable, "-c", LOOK, "tools/train.py", "configs/vit_ti.yaml",
        f"configs/data/{data}.yaml", *small, *of_data[data],
        "data.num_workers=0", "trainer.epochs=1", f"output_dir={tmp_path}", "name=run",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    collects, frozen, *modules = done.stdout.splitlines()[-1].split()
    assert collects == frozen == "True"
    assert "torch" in modules and "vision.training.train" in modules
    assert not UNUSED & set(modules)
