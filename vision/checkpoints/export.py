"""Trained classifiers in the format of timm and the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

import timm
from torch import nn

from vision.checkpoints.read import load_strict, read_checkpoint
from vision.config import Config
from vision.norms import convert_norms
from vision.norms.registry import load_norm_module


def export_model(model: nn.Module, config: Config, folder: Path, class_names: list[str]) -> None:
    """Write `model.safetensors` and `config.json` of a classifier into `folder`.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads a model with LayerNorm. Other
    norms need `load_exported`, which reads the `norm` entry of config.json.
    """
    data = config.data
    timm.models.save_for_hf(
        model,
        str(folder),
        model_config={
            "label_names": class_names,
            "norm": {"name": config.norm.name, "options": dict(config.norm.options)},
        },
        safe_serialization=True,
        data_config={
            "input_size": (data.in_chans, data.img_size, data.img_size),
            "mean": tuple(data.mean),
            "std": tuple(data.std),
            "interpolation": data.interpolation,
            "crop_pct": data.crop_pct,
        },
    )


def load_exported(folder: str | Path, norm_module: str | None = None) -> nn.Module:
    """The classifier that `export_model` wrote, in eval mode; `norm_module` as in `norm.module`.

    Raises ValueError if the weights do not fit the model of config.json.
    """
    folder = Path(folder)
    norm = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("norm")
    model = timm.create_model(f"local-dir:{folder}", pretrained=False)
    if norm_module is not None:
        load_norm_module(norm_module)
    if norm is not None:
        convert_norms(model, norm["name"], **norm["options"])
    weights = folder / "model.safetensors"
    load_strict(model, read_checkpoint(weights), str(weights))
    return model.eval()
