"""Names of an MAE's weights: ours, where the encoder has a prefix, and the published ones."""

from __future__ import annotations

from torch import Tensor

_DECODER = ("decoder_", "mask_token")


def with_encoder_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published names changed to those of `MAE`; names of `MAE` stay."""
    kept = (*_DECODER, "encoder.")
    return {k if k.startswith(kept) else f"encoder.{k}": v for k, v in state.items()}


def without_decoder(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The encoder of an `MAE`, or of a published one, under timm's names; and the names left out.

    Any other state dict is returned as it is.
    """
    if "decoder_embed.weight" not in state:
        return state, ()
    dropped = tuple(k for k in state if k.startswith(_DECODER))
    rest = {k: v for k, v in state.items() if not k.startswith(_DECODER)}
    return {k.removeprefix("encoder."): v for k, v in rest.items()}, dropped
