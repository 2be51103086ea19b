"""Masked autoencoder (He et al. 2021, https://arxiv.org/abs/2111.06377), with any norm.

The encoder is timm's VisionTransformer, the one that the classifier uses, so weights move between
the two without renaming. It sees the visible patches only; a small decoder fills in the others.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from vision.config import Config
from vision.models.classifier import create_classifier
from vision.norms import convert_norms
from vision.norms.convert import Conversion

_EPS = 1e-6  # of the decoder's LayerNorm and of the target's variance


class MAE(nn.Module):
    """An encoder with fixed positions, a decoder, and the loss on what the encoder did not see.

    Args:
        encoder: With class token, learned-position slots and no classifier; its positions are
            replaced by fixed sines and cosines, its weights start anew.
        decoder_embed_dim: Width of the decoder, a multiple of 4 and of its heads.
        decoder_depth: Its number of blocks.
        decoder_num_heads: Its attention heads.
        norm_pix_loss: Predict each patch less its mean, divided by its standard deviation.

    Raises:
        ValueError: the encoder is of another kind, or a width does not divide.
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
                # timm's hint asks for a class, but it calls whatever makes a norm
                Block(width, decoder_num_heads, qkv_bias=True, norm_layer=layer_norm)  # type: ignore[arg-type]
                for _ in range(decoder_depth)
            )
        )
        self.decoder_norm = layer_norm(width)
        self.decoder_pred = nn.Linear(width, self.patch_size**2 * self.in_chans)
        encoder.pos_embed = _fixed(sincos_positions(dim, self.grid))
        self._initialize()

    def forward(
        self, imgs: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mask, encode, decode.

        Args:
            imgs: [B, C, H, W].
            mask_ratio: Share of the patches that the encoder does not see.
            noise: [B, L]; of each image the patches with the lowest stay. None draws it uniformly
                from the global generator.

        Returns:
            Loss [], the mean squared error over removed patches; prediction [B, L, p*p*C], a patch
            laid out row, column, channel; mask [B, L], 1 where the patch was removed.
        """
        latent, mask, ids_restore = self.encode(imgs, mask_ratio, noise)
        pred = self.decode(latent, ids_restore)
        return self.loss(imgs, pred, mask), pred, mask

    def encode(
        self, imgs: Tensor, mask_ratio: float, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latent [B, 1 + kept, D] (class token first), mask [B, L], ids_restore [B, L]."""
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
        return encoder.norm(encoder.blocks(encoder.norm_pre(x))), mask, ids_restore

    def decode(self, latent: Tensor, ids_restore: Tensor) -> Tensor:
        """Latent [B, 1 + kept, D] to predictions of all patches [B, L, p*p*C]."""
        x = self.decoder_embed(latent)
        batch, length = ids_restore.shape
        missing = length + 1 - x.shape[1]
        mask_tokens = self.mask_token.to(x.dtype).expand(batch, missing, -1)
        patches = _pick(torch.cat([x[:, 1:], mask_tokens], dim=1), ids_restore)
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        return self.decoder_pred(self.decoder_norm(self.decoder_blocks(x)))[:, 1:]

    def loss(self, imgs: Tensor, pred: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over the removed patches, in float32."""
        target = self.patchify(imgs).float()
        if self.norm_pix_loss:
            mean, std = _statistics(target)
            target = (target - mean) / std
        error = (pred.float() - target).square().mean(dim=-1)  # [B, L]
        return (error * mask).sum() / mask.sum()

    def features(self, imgs: Tensor) -> Tensor:
        """What the encoder makes of whole images: mean of the patch tokens, [B, D]."""
        return self.encoder.forward_features(imgs)[:, 1:].mean(dim=1)

    def reconstruct(
        self, imgs: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images with removed patches at 0, and with the predictions in their place; [B, C, H, W].

        With `norm_pix_loss` a prediction gets the mean and deviation of the patch that it is for.
        """
        _, pred, mask = self(imgs, mask_ratio, noise)
        patches = self.patchify(imgs)
        if self.norm_pix_loss:
            mean, std = _statistics(patches.float())
            pred = pred * std + mean
        removed = mask.bool().unsqueeze(-1)
        filled = torch.where(removed, pred.to(patches.dtype), patches)
        return self.unpatchify(patches.masked_fill(removed, 0)), self.unpatchify(filled)

    def patchify(self, imgs: Tensor) -> Tensor:
        """[B, C, H, W] to [B, L, p*p*C], a patch laid out row, column, channel."""
        p, n = self.patch_size, self.grid
        x = imgs.reshape(len(imgs), self.in_chans, n, p, n, p)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(len(imgs), n * n, p * p * self.in_chans)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """[B, L, p*p*C] to [B, C, H, W]."""
        p, n = self.patch_size, self.grid
        x = patches.reshape(len(patches), n, n, p, p, self.in_chans)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), self.in_chans, n * p, n * p)

    def _initialize(self) -> None:
        """Start values as published: Xavier for linear layers and patches, 0.02 for tokens."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.encoder.patch_embed.proj.weight.data.flatten(1))
        nn.init.normal_(cast(Tensor, self.encoder.cls_token), std=0.02)
        nn.init.normal_(self.mask_token, std=0.02)


def create_mae(config: Config) -> tuple[MAE, Conversion]:
    """The autoencoder of `config.model` and `config.mae`, and which norms were swapped.

    Raises ValueError for a model that cannot be the encoder.
    """
    encoder, swapped = create_classifier(config, num_classes=0)
    options = config.mae
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
    name, norm_options = config.norm.name, config.norm.options
    if options.decoder_norm is not None:
        name, norm_options = options.decoder_norm, options.decoder_norm_options
    try:
        more = convert_norms(model, name, include="decoder_*", **norm_options)
    except ValueError as error:
        raise ValueError(f"mae.decoder_norm = {name!r}: {error}") from error
    return model, Conversion(swapped.swapped + more.swapped, swapped.skipped)


def sincos_positions(dim: int, grid: int) -> Tensor:
    """Fixed 2D positions [1, 1 + grid², dim]: zeros for the class token, then row by row.

    The first half encodes the column, the second the row, each by sines, then cosines, at
    dim / 4 frequencies from 1 down to almost 1/10000.
    """
    frequencies = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    places = torch.arange(grid, dtype=torch.float64)
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    angles = [torch.outer(axis.flatten(), frequencies) for axis in (columns, rows)]
    table = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, dim), table.float()]).unsqueeze(0)


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
