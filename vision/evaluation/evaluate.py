"""A classifier on a data set: accuracy, loss, calibration, confusion matrix, throughput."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from vision.checkpoints.export import export_model
from vision.checkpoints.hub import check_hub, push
from vision.datasets.corruptions import SEVERITIES, corrupt, corruption_names
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import Batch
from vision.datasets.splits import check_classes
from vision.environment import choose_device
from vision.errors import ConfigError
from vision.evaluation.classifier import Classifier, load_classifier, load_timm, with_data
from vision.evaluation.confusion import plot_confusion
from vision.files import check_writable, write_json
from vision.metrics.classification import (
    ClassificationMetrics,
    last_if_not_finite,
    per_class_accuracy,
)
from vision.models.classifier import count_parameters
from vision.notices import metric_text
from vision.text import show


@torch.inference_mode()
def evaluate(
    classifier: Classifier, batch_size: int, change: Callable[[Batch], Tensor] | None = None
) -> dict[str, Any]:
    """Metrics of `classifier` on its validation split, on the accelerator if there is one.

    `change` turns a batch into the images [B, C, H, W] that the model gets.

    Returns:
        `images`, `skipped`, `parameters`, `images_per_sec` (forward passes only); `top1`, `top5`,
        `loss`; `calibration_error` (percent; expected error over 15 bins of equal width,
        https://arxiv.org/abs/1706.04599); `per_class` (accuracy, percent), `confusion` (counts
        [true, predicted]), `class_names`.

    Raises:
        ValueError: The data has other classes than the model, or no readable image.
    """
    data, names = _open_data(classifier, batch_size)
    device = choose_device()
    model = classifier.model.to(device)
    metrics = ClassificationMetrics(len(names)).to(device)
    confusion = MulticlassConfusionMatrix(len(names)).to(device)
    calibration = MulticlassCalibrationError(len(names), n_bins=15, norm="l1").to(device)
    loader = data.val_dataloader()
    images, skipped, seconds, timed = 0, 0, 0.0, 0
    for index, batch in enumerate(track(loader, "evaluate", disable=change is not None)):
        skipped += int(batch.skipped)
        if len(batch.targets) == 0:
            continue
        targets = batch.targets.to(device)
        inputs = (batch.images if change is None else change(batch)).to(device)
        start = time.perf_counter()
        logits = model(inputs)
        _synchronize(device)
        if index > 0 or len(loader) == 1:  # the first batch warms up
            seconds += time.perf_counter() - start
            timed += len(targets)
        metrics.update(logits, targets)
        confusion.update(last_if_not_finite(logits.float(), targets), targets)
        calibration.update(logits.float().softmax(1), targets)
        images += len(targets)
    if images == 0:
        raise ValueError(f"data.root = {classifier.config.data.root}: no image could be read")
    counts = confusion.compute().cpu().tolist()
    return {
        "images": images,
        "skipped": skipped,
        **{name: float(value) for name, value in metrics.compute().items()},
        "calibration_error": 100 * float(calibration.compute()),
        "images_per_sec": timed / seconds,
        "parameters": count_parameters(model),
        "per_class": per_class_accuracy(counts),
        "confusion": counts,
        "class_names": names,
    }


def _open_data(classifier: Classifier, batch_size: int) -> tuple[ImageDataModule, list[str]]:
    """The data, and its classes, which are the model's. Raises ValueError if they are not."""
    config, names = classifier.config.data, classifier.class_names
    data = ImageDataModule(config, seed=0, batch_size_total=batch_size, class_names=names or None)
    if names and data.num_classes != len(names):
        raise ValueError(
            f"data.name = {config.name}: has {data.num_classes} classes, the model {len(names)}"
        )
    names = names or data.class_names
    check_classes(config, names)
    return data, names


def corruption_accuracies(
    classifier: Classifier, batch_size: int, names: Sequence[str], seed: int = 0
) -> dict[str, list[float]]:
    """Top-1 (percent) under each of the corruptions `names`, for severities 1 to 5."""
    data = classifier.config.data
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))

    def top1(name: str, severity: int) -> float:
        def change(batch: Batch) -> Tensor:
            images = [
                corrupt((image * std + mean).clamp(0, 1), name, severity, seed, int(index))
                for image, index in zip(batch.images, batch.indices, strict=True)
            ]
            return (torch.stack(images) - mean) / std

        return evaluate(classifier, batch_size, change)["top1"]

    shown = track(names, "corruptions")
    return {name: [top1(name, severity) for severity in SEVERITIES] for name in shown}


def report_evaluation(
    model: str,
    files: Sequence[str],
    overrides: Sequence[str],
    weights: str | None,
    checkpoint: str,
    ema: bool,
    split: str,
    batch_size: int,
    output: str | None,
    export: str | None,
    push_to_hub: str | None = None,
    corruptions: str | None = None,
) -> None:
    """What `tools/evaluate.py` does: load, then export, or evaluate, print and write.

    Raises ConfigError for what the user can mend.
    """
    try:
        if push_to_hub is not None:
            check_hub(push_to_hub)
        if export is not None:
            check_writable(Path(export) / "config.json")
        if weights is not None:
            classifier = load_timm(model, weights)
        else:
            classifier = load_classifier(model, checkpoint, ema)
        classifier, found = with_data(classifier, files, overrides, split)
        if export is not None:
            export_model(
                classifier.model,
                classifier.config,
                Path(export),
                classifier.class_names,
                classifier.file.parent,
                classifier.weights,
            )
            show(f"exported {classifier.weights} in {classifier.file.parent} to {export}")
            if push_to_hub is not None:
                show(f"uploaded to {push(Path(export), push_to_hub)}")
            return
        if found != split:
            show(f"no data.test_split: the {found} split")
        folder = Path(output) if output else classifier.file.parent
        kind = found + _other_weights(classifier.file, ema)
        written, picture = folder / f"evaluate_{kind}.json", folder / f"confusion_{kind}.png"
        for file in (written, picture):
            check_writable(file)
        names = corruption_names(corruptions)
        metrics = evaluate(classifier, batch_size)
        if names:
            metrics["corruptions"] = corruption_accuracies(classifier, batch_size, names)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    write_json(written, {"source": str(classifier.file), "ema": ema, "split": found, **metrics})
    title = f"{classifier.file.parent.name}: {found}, top-1 {metrics['top1']:.2f} %"
    plot_confusion(np.array(metrics["confusion"]), metrics["class_names"], picture, title)
    _print(metrics)
    show(f"written           {written}, {picture}")


def _print(metrics: Mapping[str, Any]) -> None:
    for key in ("images", "skipped", "parameters"):
        show(f"{key:<17} {metrics[key]:,}")
    for key in ("top1", "top5", "loss", "calibration_error", "images_per_sec"):
        if key in metrics:
            show(f"{key:<17} {metric_text(metrics[key])}")
    for name, accuracies in metrics.get("corruptions", {}).items():
        show(f"{name:<17} {' '.join(f'{value:6.2f}' for value in accuracies)}")


def _other_weights(file: Path, ema: bool) -> str:
    """What sets metrics of these weights apart from those of a run's last ones, in file names."""
    other = f"_{file.stem}" if file.suffix == ".ckpt" and file.stem != "last" else ""
    return other + ("_ema" if ema else "")


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
