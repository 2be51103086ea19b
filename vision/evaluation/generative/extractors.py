"""Extractors by name: those of `vision.metrics.features`, and `run:PATH`, a classifier of ours."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vision.evaluation.classifier import load_classifier
from vision.metrics.features import (
    Extractor,
    Features,
    create_extractor,
    file_hash,
    resize_images,
)

_LUMA = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # Pillow's, whose sum is 1


def open_extractor(name: str, weights: str | None = None, resize: str = "legacy") -> Extractor:
    """As `create_extractor`, and `run:PATH`: the features before the head of a classifier run.

    Raises ValueError or FileNotFoundError with the reason.
    """
    if not name.startswith("run:"):
        return create_extractor(name, weights, resize)
    if weights is not None:
        raise ValueError(f"weights = {weights}: {name} has its own; leave --weights out")
    path = Path(name.removeprefix("run:"))
    classifier = load_classifier(path)
    model, data = classifier.model, classifier.config.data
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    mode = "bilinear" if data.interpolation == "bilinear" else "bicubic"

    def extract(images: Tensor, spatial: bool) -> Features:
        x = resize_images(images, data.img_size, resize, mode)
        if data.in_chans == 1:
            x = (x * _LUMA.to(x.device)).sum(1, keepdim=True)
        x = (x / 255 - mean.to(x.device)) / std.to(x.device)
        hidden = model.forward_features(x)  # type: ignore[operator]
        pooled = model.forward_head(hidden, pre_logits=True)  # type: ignore[operator]
        logits = model.forward_head(hidden)  # type: ignore[operator]
        return Features(pooled.float(), logits.float())

    label = f"run:{path.parent.name if path.is_file() else path.resolve().name}"
    settings = {
        "extractor": label,
        "weights_sha256": file_hash(classifier.source),
        "resize": resize,
        "size": data.img_size,
        "interpolation": mode,
    }
    return Extractor(label, model, extract, settings)
