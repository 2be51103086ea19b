"""DiT and MAE as their papers describe them, of timm's layers and nn.LayerNorm alone.

What a model costs that does not know other norms. Parameters are called as in the published
checkpoints (2212.09748 for DiT, 2111.06377 for MAE).
"""

from __future__ import annotations

import math
from functools import partial

import torch
from timm.layers import Attention, Mlp, PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from vision.models.mae import sincos_positions
from vision.models.patches import patchify, unpatchify

_EPS = 1e-6
_WAVES = 256  # sines and cosines of a timestep


class _TimeEmbedding(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_WAVES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        half = _WAVES // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device)
        angles = t[:, None].float() * torch.exp(steps * (-math.log(10000) / half))
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=1))


class _LabelEmbedding(nn.Module):
    def __init__(self, classes: int, dim: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, dim)

    def forward(self, labels: Tensor) -> Tensor:
        return self.embedding_table(labels)


class _DiTBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False, eps=_EPS)
        self.attn = Attention(dim, num_heads=heads, qkv_bias=True)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False, eps=_EPS)
        gelu = partial(nn.GELU, approximate="tanh")
        self.mlp = Mlp(dim, 4 * dim, act_layer=gelu)  # type: ignore[arg-type]
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        b1, a1, g1, b2, a2, g2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + g1.unsqueeze(1) * self.attn(_modulate(self.norm1(x), b1, a1))
        return x + g2.unsqueeze(1) * self.mlp(_modulate(self.norm2(x), b2, a2))


class _FinalLayer(nn.Module):
    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(dim, elementwise_affine=False, eps=_EPS)
        self.linear = nn.Linear(dim, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        b, a = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(_modulate(self.norm_final(x), b, a))


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class PlainDiT(nn.Module):
    """A DiT that predicts noise and variance: [B, C, S, S], t [B], labels [B] to [B, 2C, S, S]."""

    def __init__(
        self, size: int, channels: int, patch: int, dim: int, depth: int, heads: int, classes: int
    ) -> None:
        super().__init__()
        self.patch = patch
        self.x_embedder = PatchEmbed(size, patch, channels, dim)
        self.t_embedder = _TimeEmbedding(dim)
        self.y_embedder = _LabelEmbedding(classes, dim)
        self.register_buffer("pos_embed", sincos_positions(dim, size // patch)[:, 1:])
        self.blocks = nn.ModuleList(_DiTBlock(dim, heads) for _ in range(depth))
        self.final_layer = _FinalLayer(dim, patch * patch * 2 * channels)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Predict noise and variance of x at timestep t."""
        x = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(labels)
        for block in self.blocks:
            x = block(x, c)
        return unpatchify(self.final_layer(x, c), self.patch)


class PlainMAE(nn.Module):
    """An MAE with a ViT encoder: images [B, 3, S, S] and noise [B, L] to its loss []."""

    def __init__(
        self,
        size: int,
        channels: int,
        patch: int,
        encoder: tuple[int, int, int],
        decoder: tuple[int, int, int],
        norm_pix_loss: bool,
    ) -> None:
        """`encoder` and `decoder`: width, depth and heads."""
        super().__init__()
        (dim, depth, heads), (width, decoder_depth, decoder_heads) = encoder, decoder
        norm = partial(nn.LayerNorm, eps=_EPS)
        self.patch, self.norm_pix_loss = patch, norm_pix_loss
        self.patch_embed = PatchEmbed(size, patch, channels, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        positions = partial(sincos_positions, grid=size // patch)
        self.pos_embed = nn.Parameter(positions(dim), requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(dim, heads, qkv_bias=True, norm_layer=norm)  # type: ignore[arg-type]
            for _ in range(depth)
        )
        self.norm = norm(dim)
        self.decoder_embed = nn.Linear(dim, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.decoder_pos_embed = nn.Parameter(positions(width), requires_grad=False)
        self.decoder_blocks = nn.ModuleList(
            Block(width, decoder_heads, qkv_bias=True, norm_layer=norm)  # type: ignore[arg-type]
            for _ in range(decoder_depth)
        )
        self.decoder_norm = norm(width)
        self.decoder_pred = nn.Linear(width, patch * patch * channels)

    def forward(self, images: Tensor, noise: Tensor, mask_ratio: float = 0.75) -> Tensor:
        """Mean squared error over the patches that are hidden from the encoder."""
        x = self.patch_embed(images) + self.pos_embed[:, 1:]
        batch, length, dim = x.shape
        keep = int(length * (1 - mask_ratio))
        order = noise.argsort(dim=1)
        places = order.argsort(dim=1)
        x = x.gather(1, order[:, :keep, None].expand(-1, -1, dim))
        first = self.cls_token + self.pos_embed[:, :1]
        x = torch.cat([first.expand(batch, -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        prediction = self._decode(self.norm(x), places)
        target = patchify(images, self.patch)
        if self.norm_pix_loss:
            variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
            target = (target - mean) / (variance + _EPS).sqrt()
        hidden = (places >= keep).float()
        error = (prediction - target).square().mean(dim=-1)
        return (error * hidden).sum() / hidden.sum()

    def _decode(self, latent: Tensor, places: Tensor) -> Tensor:
        x = self.decoder_embed(latent)
        batch, length = places.shape
        empty = self.mask_token.expand(batch, length + 1 - x.shape[1], -1)
        patches = torch.cat([x[:, 1:], empty], dim=1)
        patches = patches.gather(1, places[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :1], patches], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]
