"""DiT weights in the formats of others: published checkpoints and diffusers' class."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from torch import Tensor

from vision.checkpoints.read import load_strict
from vision.models.dit import DiT
from vision.models.dit_sizes import usual_heads

# our names (and the published ones) -> diffusers', which has q, k and v apart
_TOP = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_EMBEDDERS = {  # one for all blocks here, one for each block in diffusers
    "t_embedder.mlp.0": "norm1.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "norm1.emb.timestep_embedder.linear_2",
    "y_embedder.embedding_table": "norm1.emb.class_embedder.embedding_table",
}


def from_official(
    state_dict: dict[str, Any],
    *,
    input_size: int | None = None,
    num_heads: int | None = None,
    **options: Any,
) -> DiT:
    """The model of a published checkpoint, or of one of its training script (the average).

    Sizes are read from the tensors, except the number of heads: by default that of the published
    size with this width. `options` go to the constructor.

    Raises ValueError for another kind of file, if `input_size` does not fit, or if `num_heads` is
    not given for a width that no published size has.
    """
    keys = (key for key in ("ema", "model", "state_dict") if key in state_dict)
    state = state_dict.get(next(keys, ""), state_dict)
    if "x_embedder.proj.weight" not in state or "pos_embed" not in state:
        raise ValueError("not an official DiT checkpoint: it has no x_embedder.proj.weight")
    model = DiT(**{**_official_sizes(state, input_size, num_heads), **options})
    load_strict(model, state, "the weights")
    return model


def _official_sizes(
    state: dict[str, Tensor], input_size: int | None, num_heads: int | None
) -> dict[str, Any]:
    """Arguments of `DiT` that `state` fits."""
    embed_dim, in_channels, patch, _ = state["x_embedder.proj.weight"].shape
    found_size = math.isqrt(state["pos_embed"].shape[1]) * patch
    if input_size not in (None, found_size):
        raise ValueError(f"input_size={input_size}: the checkpoint is for {found_size}")
    heads = num_heads or usual_heads(embed_dim)
    if heads is None:
        raise ValueError(f"num_heads: no published size has width {embed_dim}; give num_heads")
    blocks = {match[1] for key in state if (match := re.match(r"blocks\.(\d+)\.", key))}
    out_channels = state["final_layer.linear.bias"].numel() // patch**2
    return {
        "sample_size": found_size,
        "patch_size": patch,
        "in_channels": in_channels,
        "embed_dim": embed_dim,
        "depth": len(blocks),
        "num_heads": heads,
        "mlp_ratio": state["blocks.0.mlp.fc1.bias"].numel() / embed_dim,
        "num_classes": len(state["y_embedder.embedding_table.weight"]) - 1,
        "learn_sigma": out_channels == 2 * in_channels,
    }


def to_diffusers(model: DiT) -> DiTTransformer2DModel:
    """The same weights in diffusers' class, in eval mode.

    Its timestep frequencies differ slightly from the published ones (`downscale_freq_shift` is 1,
    not 0, in each block's `norm1.emb.time_proj`), and so does its output. Raises ValueError for
    norms with parameters, which it does not have.
    """
    config = model.config
    if any("norm" in name for name, _ in model.named_parameters()) or config.norm != "layernorm":
        raise ValueError(f"norm {config.norm!r}: diffusers' DiT has only LayerNorm without affine")
    if config.mlp_ratio != 4:
        raise ValueError(f"mlp_ratio {config.mlp_ratio}: diffusers' DiT has 4")
    other = DiTTransformer2DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.embed_dim // config.num_heads,
        in_channels=config.in_channels,
        out_channels=model.out_channels,
        num_layers=config.depth,
        sample_size=config.sample_size,
        patch_size=config.patch_size,
        num_embeds_ada_norm=config.num_classes,
        norm_eps=1e-6,
    )
    ours = model.state_dict()
    state = {theirs: ours[name] for name, theirs in _renamed(config.depth)}
    for i in range(config.depth):
        for kind in ("weight", "bias"):
            parts = ours[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                state[f"transformer_blocks.{i}.attn1.to_{name}.{kind}"] = part
    other.load_state_dict(state)
    return other.eval()


def from_diffusers(other: DiTTransformer2DModel, **options: Any) -> DiT:
    """A `DiT` with the weights of diffusers' class; `options` go to its constructor.

    Raises ValueError if its blocks have different embedders: here they share one.
    """
    theirs, depth = other.state_dict(), other.config.num_layers
    for i in range(1, depth):
        for name in _EMBEDDERS.values():
            first, later = (f"transformer_blocks.{k}.{name}.weight" for k in (0, i))
            if not torch.equal(theirs[first], theirs[later]):
                raise ValueError(f"{later}: differs from block 0; a DiT has one for all blocks")
    state = {name: theirs[key] for name, key in _renamed(depth)}
    for i in range(depth):
        for kind in ("weight", "bias"):
            parts = [theirs[f"transformer_blocks.{i}.attn1.to_{name}.{kind}"] for name in "qkv"]
            state[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(parts)
    state["pos_embed"] = other.pos_embed.pos_embed
    return from_official(state, num_heads=other.config.num_attention_heads, **options)


def _renamed(depth: int) -> list[tuple[str, str]]:
    """(our name, name in diffusers) of all tensors but q, k and v; embedders once per block."""
    pairs = [(f"{a}.{kind}", f"{b}.{kind}") for a, b in _TOP.items() for kind in ("weight", "bias")]
    for i in range(depth):
        for names, prefix in ((_BLOCK, f"blocks.{i}."), (_EMBEDDERS, "")):
            for a, b in names.items():
                kinds = ("weight",) if b.endswith("table") else ("weight", "bias")
                pairs += [(f"{prefix}{a}.{k}", f"transformer_blocks.{i}.{b}.{k}") for k in kinds]
    return pairs
