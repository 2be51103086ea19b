"""The FID Inception-v3 (torch-fidelity's), with the spatial features that sFID needs."""

from __future__ import annotations

import socket
from pathlib import Path

import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorInceptionV3
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from vision.checkpoints.read import check_finite, find_checkpoint, read_checkpoint, state_dict_of
from vision.evaluation.generative.features import Extractor, Features, resize_images
from vision.files import file_hash

_SPATIAL_CHANNELS = 7  # of 17 x 17 positions: 2,023 numbers, as ADM's evaluator takes
_NETWORK_SECONDS = 10


def inception_extractor(weights: str | None, resize: str) -> Extractor:
    """Raises FileNotFoundError where the weights are neither at hand nor can be fetched."""
    path = Path(weights) if weights else _weights_file()
    _check_weights(path)
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
            size = FeatureExtractorInceptionV3.INPUT_IMAGE_SIZE
            images = resize_images(images, size, resize).to(torch.uint8)
        caught.clear()
        pooled, logits = model(images)
        return Features(pooled, logits, caught[0] if spatial else None)

    digest = file_hash(path)
    settings = {"extractor": "inception", "weights_sha256": digest, "resize": resize}
    published = Path(URL_INCEPTION_V3).stem.rpartition("-")[2]
    return Extractor("inception", model, extract, settings, digest.startswith(published))


def _weights_file() -> Path:
    """torch-fidelity's file in torch's cache, fetched if it is not there."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(URL_INCEPTION_V3).name
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


def _check_weights(path: Path) -> None:
    """torch-fidelity runs whatever code a pickle holds, so look at the file before it does."""
    state = state_dict_of(read_checkpoint(find_checkpoint(path)))
    if tuple(getattr(state.get("fc.weight"), "shape", ())) != (1008, 2048):
        raise ValueError(
            f"weights = {path}: not the FID Inception, whose fc.weight is [1008, 2048]; expected "
            f"{Path(URL_INCEPTION_V3).name} of torch-fidelity"
        )
    check_finite(state, f"weights = {path}")
