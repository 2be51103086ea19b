"""How many generated images a classifier takes for what they were asked to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import normalize, resize

from vision.diffusion.sample import SampleSettings, read_images
from vision.environment import choose_device
from vision.errors import ConfigError
from vision.evaluation.classifier import Classifier, load_classifier


@torch.inference_mode()
def recognized(
    images: Tensor, labels: Sequence[int], classifier: Classifier, batch_size: int = 256
) -> Tensor:
    """For each of the uint8 images [N, 1 or 3, H, W] whether `classifier` names its label, [N].

    Images are resized to the classifier's size and made grey or colour as it needs. Raises
    ValueError for a label that it does not have.
    """
    data, classes = classifier.config.data, len(classifier.class_names)
    if max(labels) >= classes:
        raise ValueError(f"{classifier.source}: has {classes} classes, no class {max(labels)}")
    device = next(classifier.model.parameters()).device
    found = []
    for start in range(0, len(images), batch_size):
        x = images[start : start + batch_size].float() / 255
        if x.shape[1] != data.in_chans:
            x = x.mean(1, keepdim=True).expand(-1, data.in_chans, -1, -1)
        if x.shape[-1] != data.img_size:
            x = resize(x, [data.img_size, data.img_size], antialias=True)
        x = normalize(x, list(data.mean), list(data.std))
        found.append(classifier.model(x.to(device)).argmax(1).cpu())
    return torch.cat(found) == torch.tensor(labels)


def report_recognized(run: str, settings: SampleSettings, folder: Path) -> None:
    """Print how many of the images that `sample` left in `folder` the classifier `run` recognizes.

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
