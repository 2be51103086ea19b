"""MAE weights in the formats of others: published checkpoints and timm's copies of them."""

from __future__ import annotations

import math
from typing import Any

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor

from vision.checkpoints.mae_names import with_encoder_prefix
from vision.checkpoints.read import check_finite
from vision.models.mae import MAE


def from_official(
    state_dict: dict[str, Any],
    *,
    num_heads: int,
    img_size: int | None = None,
    decoder_num_heads: int = 16,
    norm_pix_loss: bool = False,
) -> MAE:
    """The model of a published checkpoint (with or without `model` key or decoder), or of timm's.

    Sizes are read from the tensors; only the numbers of heads cannot be. If the file has no
    decoder, one of the published size is initialized. Raises ValueError.
    """
    state = _official_state(state_dict)
    check_finite(state, "the weights")
    encoder = _official_vit(state, img_size, num_heads)
    decoder: dict[str, int] = {}
    if "decoder_embed.weight" in state:
        names = {k.split(".")[1] for k in state if k.startswith("decoder_blocks.")}
        width = len(state["decoder_embed.weight"])
        decoder = {"decoder_embed_dim": width, "decoder_depth": len(names)}
    model = MAE(
        encoder, decoder_num_heads=decoder_num_heads, norm_pix_loss=norm_pix_loss, **decoder
    )
    ours = model.state_dict()
    fresh = {} if decoder else {k: v for k, v in ours.items() if not k.startswith("encoder.")}
    try:
        model.load_state_dict({**fresh, **with_encoder_prefix(state)})
    except RuntimeError as error:
        raise ValueError(f"not an MAE checkpoint: {' '.join(str(error).split())}") from None
    return model


def to_official(model: MAE) -> dict[str, Tensor]:
    """All tensors under the published names, which are timm's for the encoder.

    Raises ValueError for an encoder of other blocks, where these names mean something else.
    """
    kind = type(model.encoder.blocks[0])
    if kind is not Block:
        raise ValueError(
            f"the encoder has blocks of kind {kind.__name__}, which the published format does not "
            "know; keep the run's checkpoint"
        )
    return {k.removeprefix("encoder."): v for k, v in model.state_dict().items()}


def _official_state(content: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a published checkpoint, without a classifier's head. Raises ValueError."""
    state = content.get("model", content)
    if not isinstance(state, dict) or not {"patch_embed.proj.weight", "pos_embed"} <= state.keys():
        raise ValueError("not an MAE checkpoint: it has no patch_embed.proj.weight and pos_embed")
    return {k: v for k, v in state.items() if not k.startswith(("head.", "fc_norm."))}


def _official_vit(
    state: dict[str, Tensor], img_size: int | None, num_heads: int
) -> VisionTransformer:
    """An encoder that `state` fits. Raises ValueError if `img_size` or `num_heads` does not fit."""
    dim, in_chans, patch, _ = state["patch_embed.proj.weight"].shape
    found = math.isqrt(state["pos_embed"].shape[1] - 1) * patch
    if img_size not in (None, found):
        raise ValueError(f"img_size={img_size}: the checkpoint is for {found}")
    if dim % num_heads:
        raise ValueError(f"num_heads={num_heads}: does not divide the checkpoint's width {dim}")
    return VisionTransformer(
        img_size=found,
        patch_size=patch,
        in_chans=in_chans,
        num_classes=0,
        embed_dim=dim,
        depth=len({k.split(".")[1] for k in state if k.startswith("blocks.")}),
        num_heads=num_heads,
        mlp_ratio=len(state["blocks.0.mlp.fc1.weight"]) / dim,
        qkv_bias="blocks.0.attn.qkv.bias" in state,
    )
