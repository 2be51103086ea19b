"""Feature extractors by name: the FID Inception, DINOv2, any timm model, a classifier of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from vision.checkpoints.read import find_checkpoint, load_strict, read_checkpoint, state_dict_of
from vision.evaluation.classifier import load_classifier
from vision.evaluation.generative.features import Extractor, Features, resize_images
from vision.evaluation.generative.inception import inception_extractor
from vision.files import file_hash

_RESIZES = ("legacy", "antialias")
_DINOV2 = "vit_large_patch14_dinov2.lvd142m"
_DINOV2_SIZE = 224
_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # Pillow's, whose sum is 1


def create_extractor(name: str, weights: str | None = None, resize: str = "legacy") -> Extractor:
    """`inception`, `dinov2`, `timm:NAME`, or `run:PATH`, the features before a classifier's head.

    Raises ValueError for an unknown name, FileNotFoundError where weights are neither at hand nor
    can be fetched.
    """
    if resize not in _RESIZES:
        raise ValueError(f"resize = {resize!r}: expected one of {', '.join(_RESIZES)}")
    if name == "inception":
        return inception_extractor(weights, resize)
    if name == "dinov2":
        return _timm_extractor(name, _DINOV2, weights, resize, img_size=_DINOV2_SIZE)
    kind, _, rest = name.partition(":")
    if kind == "timm" and rest:
        if not timm.is_model(rest.split(".")[0]):
            raise ValueError(f"extractor = {name!r}: timm has no model {rest!r}")
        return _timm_extractor(name, rest, weights, resize)
    if kind == "run" and rest:
        if weights is not None:
            raise ValueError(f"weights = {weights}: {name} has its own; leave --weights out")
        return _run_extractor(Path(rest), resize)
    raise ValueError(f"extractor = {name!r}: expected inception, dinov2, timm:NAME or run:PATH")


def _run_extractor(path: Path, resize: str) -> Extractor:
    classifier = load_classifier(path)
    data = classifier.config.data
    label = f"run:{path.parent.name if path.is_file() else path.resolve().name}"
    settings = {
        "extractor": label,
        "weights_sha256": file_hash(classifier.file),
        "resize": resize,
        "size": data.img_size,
        "interpolation": _interpolation(data.interpolation),
    }
    return _from_model(classifier.model, settings, data.mean, data.std)


def _timm_extractor(
    label: str, name: str, weights: str | None, resize: str, **options: Any
) -> Extractor:
    model = _timm_model(label, name, weights, options)
    data = resolve_model_data_config(model)
    settings = {
        "extractor": label,
        "model": name,
        "weights_sha256": file_hash(weights) if weights else f"timm {timm.__version__}",
        "resize": resize,
        "size": options.get("img_size", data["input_size"][-1]),
        "interpolation": _interpolation(data["interpolation"]),
        "mean": data["mean"],
        "std": data["std"],
    }
    return _from_model(model, settings, data["mean"], data["std"])


def _from_model(model: Any, settings: dict[str, Any], mean: Any, std: Any) -> Extractor:
    """The features of a timm model before its head, and its logits if it has a head."""
    size, resize, mode = (settings[key] for key in ("size", "resize", "interpolation"))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def extract(images: Tensor, spatial: bool) -> Features:
        x = resize_images(images, size, resize, mode)
        if len(mean) == 1:
            x = (x * _LUMA.to(x.device)).sum(1, keepdim=True)
        x = (x / 255 - mean.to(x.device)) / std.to(x.device)
        hidden = model.forward_features(x)
        pooled = model.forward_head(hidden, pre_logits=True).float()
        return Features(pooled, model.forward_head(hidden).float() if model.num_classes else None)

    return Extractor(settings["extractor"], model, extract, settings)


def _interpolation(name: str) -> str:
    """timm's names of interpolations that torch does not know are near to bicubic."""
    return name if name == "bilinear" else "bicubic"


def _timm_model(label: str, name: str, weights: str | None, options: dict[str, Any]) -> nn.Module:
    if weights is None:
        try:
            return timm.create_model(name, pretrained=True, num_classes=0, **options).eval()
        except Exception as error:  # timm, the hub and the network each raise their own
            reason = " ".join(str(error).split())[:120]
            raise FileNotFoundError(
                f"extractor = {label}: the weights of {name} cannot be fetched ({reason}); name a "
                "file of them with --weights FILE"
            ) from error
    state: Any = state_dict_of(read_checkpoint(find_checkpoint(weights)))
    model = timm.create_model(name, num_classes=0, **options).eval()
    if isinstance(model, VisionTransformer):
        state = checkpoint_filter_fn(state, model)
    own = model.state_dict()
    # a classifier's head is not needed
    load_strict(model, {key: state[key] for key in state if key in own}, f"weights = {weights}")
    return model
