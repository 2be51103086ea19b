"""Classifiers: a timm model by name, with every norm taken from the registry."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.layers import LayerScale
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import nn

from vision.config import Config
from vision.config.schema import ModelConfig
from vision.errors import nearest
from vision.models.blocks import block_class
from vision.models.check import check_heads, check_patches
from vision.norms import convert_norms
from vision.norms.conversion import Conversion

# settings of the same name in timm, where null leaves what the model's name says
_SIZES = ("patch_size", "embed_dim", "depth", "num_heads", "global_pool")
_BLOCKS = ("norm_placement", "residual", "qk_norm", "mlp_norm")


def create_classifier(config: Config, num_classes: int) -> tuple[nn.Module, Conversion]:
    """Build `config.model` for `num_classes` and swap its norms, the final one included.

    Returns the model ([B, C, H, W] images to [B, num_classes] logits) and what was swapped.
    Raises ValueError, naming the key, for a name that timm does not know, sizes that it cannot
    build, or an option that the norm does not take.
    """
    network = _create_network(config, num_classes)
    try:
        conversion = convert_norms(network, config.norm.name, **config.norm.options)
    except ValueError as error:
        raise ValueError(f"{_norm_setting(config)}: {error}") from error
    if config.model.linear_probe:
        _freeze_below_head(network)
    return network, conversion


def _norm_setting(config: Config) -> str:
    norm = config.norm
    return f"norm.options = {norm.options}" if norm.options else f"norm.name = {norm.name!r}"


def count_parameters(model: nn.Module) -> int:
    """Number of trainable scalars."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _create_network(config: Config, num_classes: int) -> nn.Module:
    model = config.model
    if ":" not in model.name and not timm.is_model(model.name.split(".")[0]):
        known = timm.list_models()
        raise ValueError(
            f"model.name = {model.name!r}: timm has none; {nearest(model.name, known)}"
        )
    options = {key: v for key in _SIZES if (v := getattr(model, key)) is not None}
    if model.name.startswith("vit_") or _has_fixed_input(model.name):
        options["img_size"] = config.data.img_size
    blocks = _block_options(model)
    try:
        network = timm.create_model(
            model.name,
            num_classes=num_classes,
            in_chans=config.data.in_chans,
            drop_rate=model.drop_rate,
            drop_path_rate=model.drop_path_rate,
            **options,
            **blocks,
        )
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise _refusal(model, options, error) from error
    if model.residual == "fixup" and isinstance(network.head, nn.Linear):
        nn.init.zeros_(network.head.weight)  # as published
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    if patch is not None:  # timm looks only when it is given images
        check_patches(config.data.img_size, patch[0] if isinstance(patch, tuple) else patch)
    return network


def _block_options(model: ModelConfig) -> dict[str, Any]:
    """timm's arguments for what the blocks are; {} if all is as the model's name says.

    Raises ValueError, naming the key, where that name's blocks cannot be so.
    """
    standard = ModelConfig()
    given = {k: v for k in _BLOCKS if (v := getattr(model, k)) != getattr(standard, k)}
    if not given:
        return {}
    key, value = next(iter(given.items()))
    with torch.device("meta"):
        plain: Any = timm.create_model(model.name)
    if not isinstance(plain, VisionTransformer):
        raise ValueError(
            f"model.{key} = {value!r}: {model.name} is no ViT of timm's; set it to "
            f"{'null' if getattr(standard, key) is None else getattr(standard, key)}"
        )
    if {"norm_placement", "residual"} & given.keys():
        _check_residual(model, given, plain.blocks[0])
    block = block_class(model.norm_placement, model.residual, model.depth or len(plain.blocks))
    options = {"block_fn": block, "qk_norm": model.qk_norm, "scale_mlp_norm": model.mlp_norm}
    return {k: v for k, v in options.items() if v is not None}


def _check_residual(model: ModelConfig, given: dict[str, Any], block: nn.Module) -> None:
    """Raise ValueError where `given` settings exclude each other, or the block has other parts."""
    if "residual" in given and len(given) > 1:
        other = next(key for key in given if key != "residual")
        raise ValueError(
            f"model.{other} = {given[other]!r}: blocks have no norms with model.residual="
            f"{model.residual}; set it to null"
        )
    key, value = next(iter(given.items()))
    if type(block) not in (Block, ResPostBlock):
        raise ValueError(
            f"model.{key} = {value!r}: blocks of {model.name} are {type(block).__name__}, which "
            "have no attention and MLP one after the other; take a plain vit_*"
        )
    scaled = isinstance(getattr(block, "ls1", None), LayerScale)
    if scaled and (model.residual != "standard" or model.norm_placement in ("res_post", "post")):
        raise ValueError(
            f"model.{key} = {value!r}: has no place for the LayerScale of {model.name}; take a "
            "model without, such as vit_base_patch16_224"
        )


def _refusal(model: ModelConfig, options: dict[str, Any], error: Exception) -> ValueError:
    """What timm says of a model that it cannot build, by the keys of the configuration."""
    for key, value in options.items():
        if isinstance(error, TypeError) and f"'{key}'" in str(error):
            return ValueError(f"model.{key} = {value}: {model.name} takes no {key}; set it to null")
    if "num_heads" in str(error):
        with torch.device("meta"):
            plain: Any = timm.create_model(model.name)
        heads = model.num_heads or plain.blocks[0].attn.num_heads
        try:
            check_heads(model.embed_dim or plain.embed_dim, heads)
        except ValueError as explained:
            return explained
    given = ", ".join(f"model.{key} = {value}" for key, value in options.items() if key in _SIZES)
    return ValueError(f"model.name = {model.name!r}: timm cannot build it with {given}: {error}")


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
