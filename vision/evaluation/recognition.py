"""How many generated images a classifier recognizes as the class that they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vision.diffusion.sample import SampleSettings, read_images
from vision.environment import choose_device
from vision.errors import ConfigError
from vision.evaluation.classifier import Classifier, load_classifier


def recognized(
    images: Tensor, labels: Sequence[int], classifier: Classifier, batch_size: int = 256
) -> Tensor:
    """Whether `classifier` predicts the label of each uint8 image [N, 1 or 3, H, W]: bool [N].

    Raises ValueError for a label that it does not have.
    """
    classes = len(classifier.class_names)
    if max(labels) >= classes:
        raise ValueError(f"{classifier.file}: has {classes} classes, no class {max(labels)}")
    predicted = [
        classifier.predict([to_pil_image(image) for image in batch]).argmax(1)
        for batch in images.split(batch_size)
    ]
    return torch.cat(predicted) == torch.tensor(labels)


def report_recognized(run: str, settings: SampleSettings, folder: Path) -> None:
    """Print how many of the images that `sample` wrote to `folder` the classifier `run` recognizes.

    Raises ConfigError for a run that is no classifier, or one with fewer classes.
    """
    labels = [settings.label(index) for index in range(settings.count)]
    try:
        classifier = load_classifier(run)
        classifier.model.to(choose_device())
        right = recognized(read_images(settings, folder), labels, classifier)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    percent = 100 * right.float().mean().item()
    print(f"recognized       {percent:.1f} % ({int(right.sum())} of {len(right)})")
