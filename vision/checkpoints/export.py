"""Trained classifiers in the form that timm and the Hugging Face hub use."""

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

    With LayerNorm, `timm.create_model("local-dir:FOLDER", pretrained=True)` loads it; other norms
    are swapped in by `load_exported`, from the `norm` entry that config.json carries beside timm's.
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

    Raises ValueError if the weights do not fit what config.json describes.
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
