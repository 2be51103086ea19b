"""One way to load a run of any task: last or best, averaged or not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vision.checkpoints.load_run import load_run
from vision.config import Config
from vision.models.classifier import create_classifier
from vision.models.dit import create_dit
from vision.models.mae import create_mae

CLASSES = ["cat", "dog", "fish"]
TASKS = ["classify", "mae", "dit"]


def config_of(task: str) -> Config:
    config = Config(task=task)  # type: ignore[arg-type]
    config.model.name = "dit_b_4" if task == "dit" else "vit_tiny_patch16_224"
    config.model.patch_size, config.model.depth = 4, 1
    config.model.embed_dim, config.model.num_heads = 48, 3
    config.data.img_size, config.data.in_chans = 16, 1
    config.mae.decoder_embed_dim, config.mae.decoder_depth = 32, 1
    config.mae.decoder_num_heads = 2
    return config


def make_model(config: Config) -> nn.Module:
    if config.task == "dit":
        return create_dit(config, len(CLASSES))
    if config.task == "mae":
        return create_mae(config)[0]
    return create_classifier(config, len(CLASSES))[0]


def write(file: Path, config: Config, value: float) -> dict[str, Any]:
    """A checkpoint whose weights are all `value`, and its averaged ones `-value`."""
    state = make_model(config).state_dict()
    weights = {f"model.{k}": torch.full_like(v, value) for k, v in state.items()}
    if config.ema.decay is not None:
        weights |= {f"ema.module.{k}": torch.full_like(v, -value) for k, v in state.items()}
    record = {"task": config.task, "config": dataclasses.asdict(config), "class_names": CLASSES}
    content = {"pytorch-lightning_version": "2", "state_dict": weights, "vision": record}
    torch.save(content, file)
    return content


def weights_of(run: Path, task: str, **options: Any) -> float:
    model = load_run(run, task, **options).model
    assert not model.training
    (value,) = {float(v) for p in model.parameters() for v in (p.min(), p.max())}
    return value


@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_loaded_by_its_folder_or_file(tmp_path: Path, task: str) -> None:
    config = config_of(task)
    config.ema.decay = 0.9
    write(tmp_path / "last.ckpt", config, 1.0)
    write(tmp_path / "best.ckpt", config, 2.0)
    assert weights_of(tmp_path, task) == 1
    assert weights_of(tmp_path, task, ema=True) == -1
    assert weights_of(tmp_path, task, which="best") == 2
    assert weights_of(tmp_path / "best.ckpt", task, ema=None) == -2  # there is an average
    run = load_run(tmp_path, task)
    assert (run.config, run.class_names) == (config, CLASSES)
    assert run.file == tmp_path / "last.ckpt"


def test_without_an_average_it_is_refused_or_not_taken(tmp_path: Path) -> None:
    config = config_of("classify")
    config.ema.decay = None
    write(tmp_path / "last.ckpt", config, 1.0)
    assert weights_of(tmp_path, "classify", ema=None) == 1
    with pytest.raises(ValueError, match="no averaged weights"):
        load_run(tmp_path, "classify", ema=True)


def test_what_is_no_run_of_the_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"last\.ckpt: no such checkpoint"):
        load_run(tmp_path, "mae")
    content = write(tmp_path / "last.ckpt", config_of("mae"), 1.0)
    with pytest.raises(ValueError, match="records task mae, expected .* task dit; try x"):
        load_run(tmp_path, "dit", hint="; try x")
    torch.save(content["state_dict"], tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="records no configuration, expected .* task mae"):
        load_run(tmp_path, "mae")


@pytest.mark.parametrize("norm", ["dyt", "seednorm"])
def test_a_dit_trained_when_norms_were_affine_by_default_is_loaded(
    tmp_path: Path, norm: str
) -> None:
    config = config_of("dit")
    config.norm.name, config.norm.options = norm, {"affine": True}
    content = write(tmp_path / "last.ckpt", config, 1.0)
    content["vision"]["config"]["norm"]["options"] = {}  # what such a run recorded
    torch.save(content, tmp_path / "last.ckpt")
    run = load_run(tmp_path, "dit")
    assert run.config.norm.options == {"affine": True}
    assert run.model.state_dict().keys() == make_model(config).state_dict().keys()
    config.norm.options = {}
    write(tmp_path / "last.ckpt", config, 1.0)
    assert load_run(tmp_path, "dit").config.norm.options == {}


def test_a_run_with_the_former_option_dropout_is_refused_with_its_new_name(tmp_path: Path) -> None:
    config = config_of("classify")
    config.norm.name = "seednorm"
    content = write(tmp_path / "last.ckpt", config, 1.0)
    content["vision"]["config"]["norm"]["options"] = {"dropout": 0.1}
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match="no option 'dropout'; did you mean 'coefficient_dropout'"):
        load_run(tmp_path, "classify")
