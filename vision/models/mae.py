"""Masked autoencoder (He et al. 2021, https://arxiv.org/abs/2111.06377), with any norm.

The encoder is timm's VisionTransformer, as in the classifier, so that weights can be moved between
the two without renaming. It sees only the visible patches; a small decoder predicts the others, in
blocks of the published form, whatever `model.norm_placement` and `model.residual` the encoder has.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vision.config import Config
from vision.models.blocks import reset_blocks
from vision.models.classifier import create_classifier
from vision.models.patches import patchify, unpatchify
from vision.norms import convert_norms, get_norm
from vision.norms.conversion import Conversion
from vision.norms.convert import place_norms
from vision.norms.tokens import TokenLayout

_EPS = 1e-6  # of the decoder's LayerNorm and of the target's variance


class MAE(nn.Module):
    """An encoder with fixed positions, a decoder, and the loss on patches hidden from the encoder.

    Args:
        encoder: A ViT with a class token and no head. Its positions are replaced by fixed sines
            and cosines, its linear layers are initialized again.
        decoder_embed_dim: Width of the decoder, a multiple of 4 and of `decoder_num_heads`.
        decoder_depth: Number of its blocks.
        decoder_num_heads: Number of its attention heads.
        norm_pix_loss: Predict patches that are normalized by their own mean and deviation.

    Raises:
        ValueError: the encoder is of another kind, or a width is no such multiple.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        norm_pix_loss: bool = False,
    ) -> None:
        super().__init__()
        _check_encoder(encoder)
        dim, width = encoder.embed_dim, decoder_embed_dim
        if width % decoder_num_heads or width % 4 or dim % 4:
            raise ValueError(
                f"decoder width {width}: must divide by 4 and by its {decoder_num_heads} heads, "
                f"and the encoder's width {dim} by 4"
            )
        self.encoder = encoder
        self.norm_pix_loss = norm_pix_loss
        self.patch_size = int(encoder.patch_embed.patch_size[0])
        self.grid = int(encoder.patch_embed.grid_size[0])  # patches per side
        self.in_chans = int(encoder.patch_embed.proj.in_channels)
        self.decoder_embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = _fixed(sincos_positions(width, self.grid))
        layer_norm = partial(nn.LayerNorm, eps=_EPS)
        self.decoder_blocks = nn.Sequential(
            *(
                # timm's type hint asks for a class, but any callable works
                Block(width, decoder_num_heads, qkv_bias=True, norm_layer=layer_norm)  # type: ignore[arg-type]
                for _ in range(decoder_depth)
            )
        )
        self.decoder_norm = layer_norm(width)
        self.decoder_pred = nn.Linear(width, self.patch_size**2 * self.in_chans)
        encoder.pos_embed = _fixed(sincos_positions(dim, self.grid))
        # of the encoder's norms and of the decoder's, which sees all places
        self.visible = TokenLayout((self.grid, self.grid), prefix=1)
        self.all_tokens = TokenLayout((self.grid, self.grid), prefix=1)
        place_norms(encoder.modules(), self.visible, "the encoder")
        self._initialize()

    def forward(
        self, imgs: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask, encode, decode.

        Args:
            imgs: [B, C, H, W].
            mask_ratio: Fraction of the patches that is hidden from the encoder.
            noise: [B, L]; patches with the lowest values stay visible. None: uniform, from the
                global generator.

        Returns:
            Loss [], the mean squared error over hidden patches; prediction [B, L, p*p*C], laid out
            as by `patchify`; mask [B, L], 1 for hidden patches.
        """
        latent, mask, ids_restore = self.encode(imgs, mask_ratio, noise)
        pred = self.decode(latent, ids_restore)
        return self.loss(imgs, pred, mask), pred, mask

    def encode(
        self, imgs: Tensor, mask_ratio: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latent [B, 1 + visible, D] (class token first), mask [B, L], ids_restore [B, L]."""
        encoder = self.encoder
        position = cast(Tensor, encoder.pos_embed)
        x = encoder.patch_embed(imgs) + position[:, 1:]  # [B, L, D]
        if noise is None:
            noise = torch.rand(x.shape[:2], device=x.device)
        order = torch.argsort(noise, dim=1)
        ids_restore = torch.argsort(order, dim=1)
        keep = int(x.shape[1] * (1 - mask_ratio))
        x = _pick(x, order[:, :keep])
        mask = (ids_restore >= keep).float()
        first = cast(Tensor, encoder.cls_token) + position[:, :1]
        x = torch.cat([first.expand(len(x), -1, -1).to(x.dtype), x], dim=1)
        with self.visible.keeping(order[:, :keep]):
            return encoder.norm(encoder.blocks(encoder.norm_pre(x))), mask, ids_restore

    def decode(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """Latent [B, 1 + visible, D] to predictions of all patches [B, L, p*p*C]."""
        x = self.decoder_embed(latent)
        batch, length = ids_restore.shape
        missing = length + 1 - x.shape[1]
        mask_tokens = self.mask_token.to(x.dtype).expand(batch, missing, -1)
        patches = _pick(torch.cat([x[:, 1:], mask_tokens], dim=1), ids_restore)
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        return self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))[:, 1:]

    def loss(self, imgs: Tensor, pred: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over the hidden patches, float32 []."""
        target = patchify(imgs, self.patch_size).float()
        if self.norm_pix_loss:
            mean, std = _statistics(target)
            target = (target - mean) / std
        error = (pred.float() - target).square().mean(dim=-1)  # [B, L]
        return (error * mask).sum() / mask.sum()

    def features(self, imgs: Tensor) -> Tensor:
        """Mean of the encoder's patch tokens for whole images, [B, D]."""
        return self.encoder.forward_features(imgs)[:, 1:].mean(dim=1)

    def reconstruct(
        self, imgs: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images with hidden patches at 0, and with predictions in their place; each [B, C, H, W].

        With `norm_pix_loss` a prediction is scaled by the mean and deviation of the true patch.
        """
        _, pred, mask = self(imgs, mask_ratio, noise)
        patches = patchify(imgs, self.patch_size)
        if self.norm_pix_loss:
            mean, std = _statistics(patches.float())
            pred = pred * std + mean
        hidden = mask.bool().unsqueeze(-1)
        filled = torch.where(hidden, pred.to(patches.dtype), patches)
        masked = patches.masked_fill(hidden, 0)
        return unpatchify(masked, self.patch_size), unpatchify(filled, self.patch_size)

    def _initialize(self) -> None:
        """As published: Xavier for linear layers and patch embedding, std 0.02 for tokens. Blocks
        without norms keep the start values that they need."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        reset_blocks(self.encoder.blocks)
        nn.init.xavier_uniform_(self.encoder.patch_embed.proj.weight.data.flatten(1))
        nn.init.normal_(cast(Tensor, self.encoder.cls_token), std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)


def create_mae(config: Config) -> tuple[MAE, Conversion]:
    """The autoencoder of `config.model` and `config.mae`, and which norms were converted.

    Raises ValueError, naming the key, for a model that cannot be the encoder, sizes that do not go
    together, or norm options that do not fit.
    """
    options = config.mae
    if not config.model.name.startswith("vit_"):
        raise ValueError(f"model.name = {config.model.name!r}: an MAE's encoder is a vit_* model")
    if options.decoder_embed_dim % 4 or options.decoder_embed_dim % options.decoder_num_heads:
        raise ValueError(
            f"mae.decoder_embed_dim = {options.decoder_embed_dim}: expected a multiple of 4 and of "
            f"mae.decoder_num_heads = {options.decoder_num_heads}"
        )
    encoder, swapped = create_classifier(config, num_classes=0)
    try:
        model = MAE(
            cast(VisionTransformer, encoder),
            decoder_embed_dim=options.decoder_embed_dim,
            decoder_depth=options.decoder_depth,
            decoder_num_heads=options.decoder_num_heads,
            norm_pix_loss=options.norm_pix_loss,
        )
    except ValueError as error:
        raise ValueError(f"model.name = {config.model.name!r}: {error}") from error
    patches = model.grid**2
    if not 1 <= int(patches * (1 - options.mask_ratio)) < patches:
        raise ValueError(
            f"mae.mask_ratio = {options.mask_ratio}: of {patches} patches (data.img_size "
            f"{config.data.img_size}, model.patch_size {model.patch_size}) some must stay and some "
            f"go; use from {1 / patches:.3g} to {1 - 1 / patches:.3g}, or smaller patches"
        )
    name, norm_options = config.norm.name, config.norm.options
    if options.decoder_norm is not None:
        name, norm_options = options.decoder_norm, options.decoder_norm_options
    if getattr(get_norm(name), "contains_activation", False):
        raise ValueError(
            f"mae.decoder_norm = {name!r}: contains an activation, and the decoder has no norm "
            "behind one; set mae.decoder_norm=layernorm"
        )
    try:
        more = convert_norms(
            model, name, include="decoder_*", layout=model.all_tokens, **norm_options
        )
    except ValueError as error:
        raise ValueError(f"mae.decoder_norm = {name!r}: {error}") from error
    notes = (*swapped.notes, *(f"decoder: {note}" for note in more.notes))
    return model, Conversion(swapped.swapped + more.swapped, swapped.skipped, notes)


def sincos_positions(dim: int, grid: int) -> Tensor:
    """Fixed 2D sine and cosine positions [1, 1 + grid², dim]: zeros for the class token, then the
    patches row by row."""
    options = {"cls_token": True, "extra_tokens": 1, "base_size": grid, "output_type": "pt"}
    return get_2d_sincos_pos_embed(dim, grid, **options).float().unsqueeze(0)


def _statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased) of each patch, [B, L, 1]."""
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + _EPS).sqrt()


def _pick(x: Tensor, ids: Tensor) -> Tensor:
    """Tokens `ids` [B, K] of x [B, L, D]: [B, K, D]."""
    return torch.gather(x, 1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def _fixed(table: Tensor) -> nn.Parameter:
    return nn.Parameter(table, requires_grad=False)


def _check_encoder(encoder: nn.Module) -> None:
    plain = isinstance(encoder, VisionTransformer) and encoder.num_prefix_tokens == 1
    if not plain or encoder.cls_token is None or encoder.no_embed_class:
        raise ValueError("the encoder of an MAE is a timm ViT with a class token and no others")
    if isinstance(encoder.norm, nn.Identity):
        raise ValueError("the encoder of an MAE ends in a norm over all tokens (global_pool token)")
