"""Trained classifiers in the format of timm and the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
from torch import nn

from vision.checkpoints.model_card import model_card
from vision.checkpoints.read import load_strict, read_checkpoint
from vision.config import Config
from vision.config.schema import ModelConfig
from vision.files import written
from vision.models.blocks import block_class
from vision.norms import convert_norms
from vision.norms.registry import load_norm_module


def export_model(
    model: nn.Module,
    config: Config,
    folder: Path,
    class_names: list[str],
    run: Path | None = None,
    weights: str | None = None,
) -> None:
    """Write `model.safetensors`, `config.json` and a model card, README.md, into `folder`.

    `run` is the directory in which the metrics of the card are looked for; `weights` says on the
    card which they are: of which checkpoint, the average or not.

    `timm.create_model("local-dir:FOLDER", pretrained=True)` loads a model with LayerNorm. Other
    norms need `load_exported`, which reads the `norm` entry of config.json, and so do other blocks
    (the `blocks` entry): timm stops at the name that stands for their class.
    """
    data = config.data
    blocks = _blocks(model, config.model)
    timm.models.save_for_hf(
        model,
        str(folder),
        model_config={
            "label_names": class_names,
            "norm": {"name": config.norm.name, "options": dict(config.norm.options)},
            **({} if blocks is None else {"blocks": blocks}),
        },
        model_args=None if blocks is None else {"block_fn": "vision.models.blocks"},
        safe_serialization=True,
        data_config={
            "input_size": (data.in_chans, data.img_size, data.img_size),
            "mean": tuple(data.mean),
            "std": tuple(data.std),
            "interpolation": data.interpolation,
            "crop_pct": data.crop_pct,
        },
    )
    plain = config.norm.name == "layernorm" and blocks is None
    with written(folder / "README.md") as temporary:
        temporary.write_text(
            model_card(config, run, _loader(folder, plain), weights), encoding="utf-8"
        )


def _loader(folder: Path, plain: bool) -> str:
    """The lines that load the export: with timm alone, or with this package."""
    if plain:
        place = json.dumps(f"local-dir:{folder}")
        return f"import timm\n\nmodel = timm.create_model({place}, pretrained=True)"
    module = "from vision.checkpoints.export import load_exported"
    return f"{module}\n\nmodel = load_exported({json.dumps(str(folder))})"


def _blocks(model: Any, config: ModelConfig) -> dict[str, Any] | None:
    """Arguments of `block_class`; None where timm knows the blocks by the model's name."""
    if config.norm_placement is None and config.residual == "standard":
        return None
    return {
        "norm_placement": config.norm_placement,
        "residual": config.residual,
        "num_blocks": len(model.blocks),
    }


def load_exported(folder: str | Path, norm_module: str | None = None) -> nn.Module:
    """The classifier that `export_model` wrote, in eval mode; `norm_module` as in `norm.module`.

    Raises ValueError if the weights do not fit the model of config.json.
    """
    folder = Path(folder)
    recorded = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    norm, blocks = recorded.get("norm"), recorded.get("blocks")
    options: dict[str, Any] = {} if blocks is None else {"block_fn": block_class(**blocks)}
    model = timm.create_model(f"local-dir:{folder}", pretrained=False, **options)
    if norm_module is not None:
        load_norm_module(norm_module)
    if norm is not None:
        convert_norms(model, norm["name"], **norm["options"])
    weights = folder / "model.safetensors"
    load_strict(model, read_checkpoint(weights), str(weights))
    return model.eval()
