"""Feature extractors by name: the FID Inception, DINOv2, and any timm model."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import load_state_dict
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

RESIZES = ("legacy", "antialias")
_INCEPTION_SIZE = 299
_SPATIAL_CHANNELS = 7  # of 17 x 17 positions: 2,023 numbers, as ADM's evaluator takes
_DINOV2 = "vit_large_patch14_dinov2.lvd142m"
_DINOV2_SIZE = 224
_NETWORK_SECONDS = 10


@dataclass(frozen=True)
class Features:
    """What an extractor tells of a batch: `pooled` [B, D]; `logits` [B, C]; `spatial` [B, S]."""

    pooled: Tensor
    logits: Tensor | None = None
    spatial: Tensor | None = None


@dataclass(frozen=True)
class Extractor:
    """uint8 images [B, 3, H, W] of any size to features; float32 out.

    `settings` says what changes the features: figures are comparable only where all are equal.
    `published` is false for weights that are not those of published figures.
    """

    name: str
    model: nn.Module
    extract: Callable[[Tensor, bool], Features]  # (images, whether spatial features are wanted)
    settings: dict[str, Any] = field(default_factory=dict)
    published: bool = True

    @torch.inference_mode()
    def __call__(self, images: Tensor, spatial: bool = False) -> Features:
        """Features of one batch, computed where the model is."""
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        return self.extract(images.to(device), spatial)

    def label(self, figure: str) -> str:
        """`fid` is called FID only with the FID Inception: FD[NAME] and so on elsewhere."""
        if self.name == "inception":
            return {"fid": "FID", "sfid": "sFID", "kid": "KID", "is": "IS"}.get(figure, figure)
        short = {"fid": "FD", "kid": "KD", "is": "IS"}.get(figure, figure)
        return f"{short}[{self.name}]"


def create_extractor(name: str, weights: str | None = None, resize: str = "legacy") -> Extractor:
    """`inception`, `dinov2` or `timm:NAME`, in eval mode.

    Raises ValueError for an unknown name, FileNotFoundError where weights are neither at hand nor
    to be fetched.
    """
    if resize not in RESIZES:
        raise ValueError(f"resize = {resize!r}: expected one of {', '.join(RESIZES)}")
    if name == "inception":
        return _inception(weights, resize)
    if name == "dinov2":
        return _timm(name, _DINOV2, weights, resize, img_size=_DINOV2_SIZE)
    if name.startswith("timm:"):
        model = name.removeprefix("timm:")
        if not timm.is_model(model.split(".")[0]):
            raise ValueError(f"extractor = {name!r}: timm has no model {model!r}")
        return _timm(name, model, weights, resize)
    raise ValueError(f"extractor = {name!r}: expected inception, dinov2, timm:NAME or run:PATH")


def resize_images(images: Tensor, size: int, resize: str, mode: str = "bicubic") -> Tensor:
    """uint8 [B, C, H, W] to float32 of `size` x `size`, values 0 to 255.

    `legacy`: the bilinear sampling of TensorFlow 1, without antialiasing, that the published FID
    figures are made with. `antialias`: `mode` with antialiasing, rounded to 8 bits as a saved
    image would be (https://arxiv.org/abs/2104.11222).
    """
    if images.shape[-2:] == (size, size):
        return images.float()
    if resize == "legacy":
        return interpolate_bilinear_2d_like_tensorflow1x(
            images.float(), size=(size, size), align_corners=False
        )
    scaled = F.interpolate(images.float(), (size, size), mode=mode, antialias=True)
    return scaled.round().clamp(0, 255)


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _inception(weights: str | None, resize: str) -> Extractor:
    path = Path(weights) if weights else _inception_file()
    _check_inception(path)
    layers = ["2048", "logits_unbiased"]
    model = FeatureExtractorInceptionV3("inception-v3-compat", layers, str(path))
    caught: list[Tensor] = []
    # the extractor has no spatial output: ADM's is the first 1x1 convolution of TensorFlow's
    # mixed_6, which is torch-fidelity's Mixed_6d
    model.get_submodule("Mixed_6d.branch1x1").register_forward_hook(
        lambda module, inputs, output: caught.append(output[:, :_SPATIAL_CHANNELS].flatten(1))
    )

    def extract(images: Tensor, spatial: bool) -> Features:
        if resize == "antialias":
            images = resize_images(images, _INCEPTION_SIZE, resize).to(torch.uint8)
        caught.clear()
        pooled, logits = model(images)
        return Features(pooled, logits, caught[0] if spatial else None)

    digest = file_hash(path)
    settings = {"extractor": "inception", "weights_sha256": digest, "resize": resize}
    published = Path(URL_INCEPTION_V3).stem.rpartition("-")[2]
    return Extractor("inception", model, extract, settings, digest.startswith(published))


def _inception_file() -> Path:
    """torch-fidelity's file in torch's cache, fetched where it is not there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / URL_INCEPTION_V3.rpartition("/")[2]
    if file.is_file():
        return file
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_NETWORK_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(file), progress=False)
    except OSError as error:  # URLError is one
        raise FileNotFoundError(
            f"extractor = inception: {file.name} is not in {folder} and cannot be fetched "
            f"({error}); get {URL_INCEPTION_V3}, put it there, or name it with --weights FILE"
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    return file


def _check_inception(path: Path) -> None:
    """torch-fidelity would run what is in a pickle: look at the file before it does."""
    state = _read_weights(path)
    if tuple(getattr(state.get("fc.weight"), "shape", ())) != (1008, 2048):
        raise ValueError(
            f"weights = {path}: not the FID Inception, whose fc.weight is [1008, 2048]; expected "
            f"{URL_INCEPTION_V3.rpartition('/')[2]} of torch-fidelity"
        )


def _read_weights(path: str | Path) -> dict[str, Any]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights = {path}: no such file")
    try:
        return load_state_dict(str(path), weights_only=True)
    except Exception as error:  # whatever zip, pickle and safetensors think of the file
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"weights = {path}: not a file of weights ({reason})") from error


def _timm(label: str, name: str, weights: str | None, resize: str, **options: Any) -> Extractor:
    model: Any = _timm_model(label, name, weights, options)
    data = resolve_model_data_config(model)
    size = options.get("img_size", data["input_size"][-1])
    # timm's "bicubic" and "bilinear" are what interpolate knows
    mode = data["interpolation"] if data["interpolation"] == "bilinear" else "bicubic"
    mean, std = (torch.tensor(data[key]).view(3, 1, 1) for key in ("mean", "std"))

    def extract(images: Tensor, spatial: bool) -> Features:
        x = resize_images(images, size, resize, mode) / 255
        x = (x - mean.to(x.device)) / std.to(x.device)
        return Features(model.forward_head(model.forward_features(x), pre_logits=True).float())

    digest = file_hash(weights) if weights else f"timm {timm.__version__}"
    settings = {"extractor": label, "model": name, "weights_sha256": digest, "resize": resize}
    settings |= {"size": size, "interpolation": mode, "mean": data["mean"], "std": data["std"]}
    return Extractor(label, model, extract, settings)


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
    state = _read_weights(weights)
    model = timm.create_model(name, num_classes=0, **options).eval()
    if isinstance(model, VisionTransformer):
        state = checkpoint_filter_fn(state, model)
    missing = sorted(model.state_dict().keys() - state.keys())
    if missing:
        raise ValueError(
            f"weights = {weights}: has no {missing[0]} ({len(missing)} tensors missing): not "
            f"those of {name}"
        )
    try:
        model.load_state_dict(state, strict=False)  # a classifier's head is not needed
    except RuntimeError as error:
        raise ValueError(
            f"weights = {weights}: shapes differ from those of {name}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return model
