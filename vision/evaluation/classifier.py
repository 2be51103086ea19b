"""A trained classifier on a data set: accuracy, loss, confusion matrix, throughput."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from rich.progress import track
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torchmetrics.classification import MulticlassCalibrationError, MulticlassConfusionMatrix

from vision.checkpoints.export import export_model
from vision.checkpoints.load_run import load_run
from vision.checkpoints.read import find_checkpoint, load_strict, read_checkpoint, state_dict_of
from vision.config import Config, load_config
from vision.config.load import Source
from vision.datasets.check import check_data
from vision.datasets.corruptions import SEVERITIES, corrupt, corruption_names
from vision.datasets.datamodule import ImageDataModule
from vision.datasets.dataset import Batch
from vision.datasets.image_files import decode, image_mode
from vision.datasets.transforms import eval_transform
from vision.environment import choose_device
from vision.errors import ConfigError
from vision.evaluation.confusion import plot_confusion
from vision.files import write_json
from vision.metrics.classification import ClassificationMetrics, per_class_accuracy
from vision.models.classifier import count_parameters

# where the images are; how they are prepared belongs to the model
_DATA_SOURCE = "name root train_split val_split test_split download num_workers on_corrupt".split()


@dataclass(frozen=True)
class Classifier:
    """A model in eval mode with the configuration that it was trained by."""

    model: nn.Module
    config: Config
    class_names: list[str]
    source: str

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> Tensor:
        """Probabilities [B, classes] float32 of images of any size, prepared as for evaluation."""
        data = self.config.data
        transform, mode = eval_transform(data), image_mode(data.in_chans)
        batch = torch.stack([transform(decode(image, mode)) for image in images])
        device = next(self.model.parameters()).device
        return self.model(batch.to(device)).float().softmax(1).cpu()


def load_classifier(path: str | Path, which: str = "last", ema: bool = False) -> Classifier:
    """The classifier of a run directory (`which`: "last" or "best") or of its .ckpt file.

    Raises FileNotFoundError or ValueError with the reason.
    """
    hint = "; start a classifier from it with model.init_from"
    run = load_run(path, "classify", which, ema, hint)
    return Classifier(run.model, run.config, run.class_names, str(run.file))


def load_timm(name: str, weights: str) -> Classifier:
    """A timm model by name with weights from a local file; preprocessing as timm says."""
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"{name}: neither a run, nor a checkpoint, nor a timm model")
    state = state_dict_of(read_checkpoint(find_checkpoint(weights)))
    pretrained = timm.get_pretrained_cfg(name)
    head = f"{pretrained.classifier}.weight" if pretrained else "head.weight"
    if head not in state:
        raise ValueError(f"{weights}: has no {head}: not a classifier of {name}")
    model = timm.create_model(name, num_classes=len(state[head]))
    load_strict(model, state, weights)
    settings = resolve_model_data_config(model)
    config = Config(name=name.replace("/", "_"))
    config.model.name = name
    config.data = dataclasses.replace(
        config.data,
        img_size=settings["input_size"][-1],
        in_chans=settings["input_size"][0],
        mean=list(settings["mean"]),
        std=list(settings["std"]),
        interpolation=settings["interpolation"],
        crop_pct=settings["crop_pct"],
    )
    return Classifier(model.eval(), config, [], weights)


def with_data(
    classifier: Classifier, files: Sequence[str], overrides: Sequence[str], split: str
) -> Classifier:
    """The same classifier, pointed at one split of the data of `files` and `overrides`.

    Only where the images come from is taken from a file: size, channels, mean, std and crop stay
    those that the model was trained with, unless an override names them.
    """
    data = dataclasses.asdict(classifier.config.data)
    if files:
        given = dataclasses.asdict(load_config(files).config.data)
        data.update({key: given[key] for key in _DATA_SOURCE})
    start = Source(classifier.source, {"data": data}, {})
    loaded = load_config([], overrides, [start])
    given_data = loaded.config.data
    name = given_data.test_split if split == "test" else None
    name = name or given_data.val_split
    # the other splits need not be there
    data_config = dataclasses.replace(
        given_data, train_split=name, val_split=name, test_split=None, train_fraction=1.0
    )
    try:
        check_data(data_config)
    except (ValueError, FileNotFoundError) as error:
        raise loaded.locate(error) from None
    config = dataclasses.replace(classifier.config, data=data_config)
    return dataclasses.replace(classifier, config=config)


@torch.inference_mode()
def evaluate(
    classifier: Classifier, batch_size: int, change: Callable[[Batch], Tensor] | None = None
) -> dict[str, Any]:
    """Judge `classifier` on its validation split; device: the accelerator where there is one.

    Returns `images`, `skipped`, `top1`, `top5`, `calibration_error` (percent; expected error over
    15 bins of equal width, 1706.04599), `loss`, `images_per_sec` (the model's forward passes
    alone), `parameters`, `per_class` (percent), `confusion` (counts [true, predicted]) and
    `class_names`. `change` makes the images [B, C, H, W] that the model sees.
    """
    data = ImageDataModule(
        classifier.config.data,
        seed=0,
        batch_size_total=batch_size,
        class_names=classifier.class_names or None,
    )
    if classifier.class_names and data.num_classes != len(classifier.class_names):
        raise ValueError(
            f"data.name = {classifier.config.data.name}: has {data.num_classes} classes, the model "
            f"{len(classifier.class_names)}"
        )
    names = classifier.class_names or data.class_names
    device = choose_device()
    model = classifier.model.to(device)
    metrics = ClassificationMetrics(len(names)).to(device)
    confusion = MulticlassConfusionMatrix(len(names)).to(device)
    calibration = MulticlassCalibrationError(len(names), n_bins=15, norm="l1").to(device)
    loader = data.val_dataloader()
    images, skipped, seconds, timed = 0, 0, 0.0, 0
    shown = track(loader, description="evaluate", disable=change is not None)
    for index, batch in enumerate(shown):
        skipped += int(batch.skipped)
        if len(batch.targets) == 0:
            continue
        targets = batch.targets.to(device)
        inputs = (batch.images if change is None else change(batch)).to(device)
        start = time.perf_counter()
        logits = model(inputs)
        _synchronize(device)
        if index > 0 or len(loader) == 1:  # the first batch holds the warm-up
            seconds += time.perf_counter() - start
            timed += len(targets)
        metrics.update(logits, targets)
        confusion.update(logits, targets)
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


def robustness(
    classifier: Classifier, batch_size: int, names: Sequence[str], seed: int = 0
) -> dict[str, list[float]]:
    """Top-1 (percent) under each corruption of `names`, for severities 1 to 5."""
    data = classifier.config.data
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    found: dict[str, list[float]] = {}
    for name in track(names, description="corruptions"):
        found[name] = []
        for severity in SEVERITIES:

            def change(batch: Batch, name: str = name, severity: int = severity) -> Tensor:
                images = [
                    corrupt((image * std + mean).clamp(0, 1), name, severity, seed, int(index))
                    for image, index in zip(batch.images, batch.indices, strict=True)
                ]
                return (torch.stack(images) - mean) / std

            found[name].append(evaluate(classifier, batch_size, change)["top1"])
    return found


def judge(
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
    corruptions: str | None = None,
) -> None:
    """What `tools/evaluate.py` does: load, then export or judge, print and write.

    Raises ConfigError for whatever the person asking can mend.
    """
    try:
        if weights is not None:
            classifier = load_timm(model, weights)
        else:
            classifier = load_classifier(model, checkpoint, ema)
        classifier = with_data(classifier, files, overrides, split)
        if export is not None:
            export_model(classifier.model, classifier.config, Path(export), classifier.class_names)
            print(f"exported {classifier.source} to {export}")
            return
        names = corruption_names(corruptions)
        figures = evaluate(classifier, batch_size)
        if names:
            figures["corruptions"] = robustness(classifier, batch_size, names)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    folder = Path(output) if output else Path(classifier.source).parent
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"evaluate_{split}"
    write_json(
        folder / f"{stem}.json",
        {"source": classifier.source, "ema": ema, "split": split, **figures},
    )
    picture = folder / "confusion.png"
    title = f"{Path(classifier.source).parent.name}: {split}, top-1 {figures['top1']:.2f} %"
    plot_confusion(np.array(figures["confusion"]), figures["class_names"], picture, title)
    for key in ("images", "skipped", "parameters"):
        print(f"{key:<17} {figures[key]:,}")
    for key in ("top1", "top5", "loss", "calibration_error", "images_per_sec"):
        if key in figures:
            print(f"{key:<17} {figures[key]:.4g}")
    for name, accuracies in figures.get("corruptions", {}).items():
        print(f"{name:<17} {' '.join(f'{value:6.2f}' for value in accuracies)}")
    print(f"written           {folder / stem}.json, {picture}")


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()
