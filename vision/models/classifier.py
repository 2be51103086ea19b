"""Classifiers: a timm model by name, with every norm taken from the registry."""

from __future__ import annotations

import timm
from torch import nn

from vision.config import Config
from vision.norms import convert_norms
from vision.norms.convert import Conversion


def create_classifier(config: Config, num_classes: int) -> tuple[nn.Module, Conversion]:
    """Build `config.model` for `num_classes` and swap its norms, the final one included.

    Returns the model ([B, C, H, W] images to [B, num_classes] logits) and what was swapped.
    Raises ValueError for a name that timm does not know or an option that its norm does not take.
    """
    model = config.model
    if ":" not in model.name and not timm.is_model(model.name.split(".")[0]):
        raise ValueError(f"model.name = {model.name!r}: timm has no such model")
    options = {
        key: value
        for key in ("patch_size", "embed_dim", "depth", "num_heads", "global_pool")
        if (value := getattr(model, key)) is not None
    }
    if model.name.startswith("vit_") or _has_fixed_input(model.name):
        options["img_size"] = config.data.img_size
    network = timm.create_model(
        model.name,
        num_classes=num_classes,
        in_chans=config.data.in_chans,
        drop_rate=model.drop_rate,
        drop_path_rate=model.drop_path_rate,
        **options,
    )
    try:
        conversion = convert_norms(network, config.norm.name, **config.norm.options)
    except ValueError as error:
        raise ValueError(f"norm.options = {config.norm.options}: {error}") from error
    if model.linear_probe:
        _freeze_below_head(network)
    return network, conversion


def count_parameters(model: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _freeze_below_head(network: nn.Module) -> None:
    """Leave a linear layer behind a batch norm without affine to train (2111.06377, A.1)."""
    head = getattr(network, "head", None)
    if not isinstance(head, nn.Linear):
        raise ValueError(
            "model.linear_probe = true: needs a model whose `head` is a linear layer, such as a ViT"
        )
    network.requires_grad_(False)
    nn.init.normal_(head.weight, std=0.01)
    probe = nn.Sequential(nn.BatchNorm1d(head.in_features, affine=False, eps=1e-6), head)
    network.head = probe.requires_grad_(True)


def _has_fixed_input(name: str) -> bool:
    pretrained = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return bool(pretrained and pretrained.fixed_input_size)
