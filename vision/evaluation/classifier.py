"""A trained classifier: loading it, predicting with it, pointing it at other images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import resolve_model_data_config
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vision.checkpoints.load_run import LoadedRun, load_run
from vision.checkpoints.read import find_checkpoint, load_strict, read_checkpoint, state_dict_of
from vision.config import Config, load_config
from vision.config.load import Source
from vision.datasets.check import check_data
from vision.datasets.image_files import decode, image_mode
from vision.datasets.transforms import eval_transform
from vision.diffusion.sample import SampleSettings, read_images
from vision.environment import choose_device
from vision.errors import ConfigError
from vision.text import show

# where the images are; how they are prepared belongs to the model
_DATA_SOURCE = "name root train_split val_split test_split download num_workers on_corrupt".split()


@dataclass(frozen=True)
class Classifier(LoadedRun):
    """A model in eval mode, and the configuration and classes that it was trained with."""

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> Tensor:
        """Probabilities [B, num_classes] float32; images of any size, prepared as in validation."""
        data = self.config.data
        transform, mode = eval_transform(data), image_mode(data.in_chans)
        batch = torch.stack([transform(decode(image, mode)) for image in images])
        device = next(self.model.parameters()).device
        return self.model(batch.to(device)).float().softmax(1).cpu()


def load_classifier(path: str | Path, which: str = "last", ema: bool = False) -> Classifier:
    """The classifier of a run directory (`which`: "last" or "best") or of its .ckpt file.

    Raises FileNotFoundError or ValueError.
    """
    hint = "; start a classifier from it with model.init_from"
    return Classifier(**vars(load_run(path, "classify", which, ema, hint)))


def load_timm(name: str, weights: str) -> Classifier:
    """The timm model `name` with weights from a file, and timm's preprocessing for it.

    Raises FileNotFoundError or ValueError.
    """
    if not timm.is_model(name.split(".")[0]):
        raise ValueError(f"{name}: neither a run, nor a checkpoint, nor a timm model")
    file = find_checkpoint(weights)
    state = state_dict_of(read_checkpoint(file))
    pretrained = timm.get_pretrained_cfg(name)
    head = f"{pretrained.classifier}.weight" if pretrained else "head.weight"
    if head not in state:
        raise ValueError(f"{weights}: has no {head}: not a classifier of {name}")
    model = timm.create_model(name, num_classes=len(state[head]))
    load_strict(model, state, weights)
    settings = resolve_model_data_config(model)
    channels, size, _ = settings["input_size"]
    config = Config(name=name.replace("/", "_"))
    config.model.name = name
    config.data = dataclasses.replace(
        config.data,
        img_size=size,
        in_chans=channels,
        mean=list(settings["mean"]),
        std=list(settings["std"]),
        interpolation=settings["interpolation"],
        crop_pct=settings["crop_pct"],
    )
    return Classifier(model.eval(), config, [], file, f"the weights of {file.name}")


def with_data(
    classifier: Classifier, files: Sequence[str], overrides: Sequence[str], split: str
) -> tuple[Classifier, str]:
    """The same classifier, with the data of `files` and `overrides` as its validation split.

    A file only says where the images come from: size, channels, mean, std and crop stay those that
    the model was trained with, unless an override names them. `split`: "validation" or "test";
    the one that is taken is returned too: validation where there is no `data.test_split`.
    """
    data = dataclasses.asdict(classifier.config.data)
    if files:
        given = dataclasses.asdict(load_config(files).config.data)
        data.update({key: given[key] for key in _DATA_SOURCE})
    loaded = load_config([], overrides, [Source(str(classifier.file), {"data": data}, {})])
    found = loaded.config.data
    if found.test_split is None:
        split = "validation"
    name = (found.test_split if split == "test" else None) or found.val_split
    # the other splits need not exist
    found = dataclasses.replace(
        found, train_split=name, val_split=name, test_split=None, train_fraction=1.0
    )
    try:
        check_data(found)
    except (ValueError, FileNotFoundError) as error:
        raise loaded.locate(error) from None
    config = dataclasses.replace(classifier.config, data=found)
    return dataclasses.replace(classifier, config=config), split


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
    show(f"recognized       {percent:.1f} % ({int(right.sum())} of {len(right)})")
