"""Diffusion transformer (Peebles, Xie 2022, https://arxiv.org/abs/2212.09748), with any norm.

Attention, MLP and patch embedding are timm's; saving, loading and hub upload are diffusers'.
Modules are named as in the published checkpoints, so that those load as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_2d_sincos_pos_embed, get_timestep_embedding
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from timm.layers import Attention, GELUTanh, Mlp, PatchEmbed
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vision.config import Config
from vision.errors import nearest
from vision.models.check import check_heads, check_patches
from vision.models.dit_sizes import DIT_NAMES, dit_size
from vision.models.patches import unpatchify
from vision.norms import Norm
from vision.norms.convert import place_norms
from vision.norms.registry import create_norm, get_norm
from vision.norms.registry import norm_options as _options_of
from vision.norms.tokens import TokenLayout

_FREQUENCIES = 256  # sines and cosines that encode a timestep
ZeroInit = Literal[True, False, "blocks"]


class TimestepEmbedder(nn.Module):
    """Timesteps [B] to vectors [B, dim]: sinusoids, then two linear layers."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, timestep: Tensor) -> Tensor:
        """Embed `timestep` [B], of any number type."""
        waves = get_timestep_embedding(
            timestep, _FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0
        )
        return self.mlp(waves.to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    """Classes [B] to vectors [B, dim]; the last one is the null class, for guidance."""

    def __init__(self, num_classes: int, dim: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, dim)

    def forward(self, labels: Tensor) -> Tensor:
        """Embed `labels` [B], int64 from 0 to num_classes."""
        return self.embedding_table(labels)


def _modulated(norm: nn.Module, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """norm(x) · (1 + scale) + shift, in one pass where the norm has one."""
    if isinstance(norm, Norm):
        return norm.modulated(x, scale, shift)
    return norm(x) * (1 + scale) + shift


class DiTBlock(nn.Module):
    """Attention and MLP; the condition shifts and scales their inputs and gates their outputs."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, norm: dict[str, Any]) -> None:
        super().__init__()
        self.norm1 = create_norm(dim=dim, **norm)
        self.attn = Attention(dim, num_heads=num_heads, qkv_bias=True)
        self.norm2 = create_norm(dim=dim, **norm)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=GELUTanh)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens [B, L, D] and condition [B, D] to tokens [B, L, D]."""
        modulation = self.adaLN_modulation(condition).unsqueeze(1)  # [B, 1, 6D]
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)
        x = x + gate1 * self.attn(_modulated(self.norm1, x, scale1, shift1))
        return x + gate2 * self.mlp(_modulated(self.norm2, x, scale2, shift2))


class FinalLayer(nn.Module):
    """The last norm, scaled and shifted by the condition, and the projection to patches."""

    def __init__(self, dim: int, out_features: int, norm: dict[str, Any]) -> None:
        super().__init__()
        self.norm_final = create_norm(dim=dim, **norm)
        self.linear = nn.Linear(dim, out_features)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens [B, L, D] and condition [B, D] to patches [B, L, p*p*C]."""
        shift, scale = self.adaLN_modulation(condition).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(_modulated(self.norm_final, x, scale, shift))


class DiT(ModelMixin, ConfigMixin):
    """Predicts noise (or velocity) and, with `learn_sigma`, its variance as a point in its range.

    Args:
        sample_size: Side of the square input, in pixels or latent pixels.
        patch_size: Side of a patch; divides `sample_size`.
        in_channels: Channels of the input, C.
        embed_dim: Width of a token.
        depth: Number of blocks.
        num_heads: Attention heads; divides `embed_dim`.
        mlp_ratio: Width of the MLP over that of a token.
        num_classes: Classes; the null class has the number `num_classes`.
        learn_sigma: Predict the variance too, in a second half of the output's channels.
        norm: A name from `vision.norms.list_norms()`, used for all norms.
        norm_options: Keyword options of that norm. `affine`, where its class has that option, is
            false unless given here: the condition scales and shifts, as published.
        zero_init: adaLN-Zero, where blocks start as the identity and the output as zero; "blocks"
            for blocks alone, False for neither, as the suites of Derf and DyT have them.

    Raises:
        ValueError: an unknown norm, an option that it does not take, or sizes that do not divide.
    """

    # read by diffusers (tried with 0.42)
    _supports_gradient_checkpointing = True
    _no_split_modules = ("DiTBlock",)

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        embed_dim: int = 1152,
        depth: int = 28,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        learn_sigma: bool = True,
        norm: str = "layernorm",
        norm_options: dict[str, Any] | None = None,
        zero_init: ZeroInit = True,
    ) -> None:
        super().__init__()
        _check_sizes(sample_size, patch_size, embed_dim, num_heads)
        if getattr(get_norm(norm), "contains_activation", False):
            raise ValueError(f"{norm!r} contains an activation, and a DiT has no norm behind one")
        self.out_channels = in_channels * (2 if learn_sigma else 1)
        published = {"affine": False} if "affine" in _options_of(norm) else {}
        options = {**published, **(norm_options or {})}
        self.register_to_config(norm_options=options)  # `affine` is always on record
        layer = {"name": norm, **options}
        self.x_embedder = PatchEmbed(sample_size, patch_size, in_channels, embed_dim)
        self.t_embedder = TimestepEmbedder(embed_dim)
        self.y_embedder = LabelEmbedder(num_classes, embed_dim)
        grid = sample_size // patch_size
        positions = get_2d_sincos_pos_embed(embed_dim, grid, base_size=grid, output_type="pt")
        # [1, L, D], not trained; in the dtype of the weights, because diffusers tells by the first
        # tensor of a file whether it has that of the model
        positions = positions.to(torch.get_default_dtype()).unsqueeze(0)
        self.register_buffer("pos_embed", positions)
        self.blocks = nn.ModuleList(
            DiTBlock(embed_dim, num_heads, mlp_ratio, layer) for _ in range(depth)
        )
        self.final_layer = FinalLayer(embed_dim, patch_size**2 * self.out_channels, layer)
        for module in self.modules():
            if isinstance(module, Norm):
                module.enter_block(None)
        place_norms(self.modules(), TokenLayout((grid, grid)), "DiT")
        self.gradient_checkpointing = False
        self._initialize(zero_init)

    @classmethod
    def from_pretrained(cls, path: Any, *arguments: Any, **options: Any) -> Any:
        """As in diffusers, which only warns of weights that the file lacks or has besides; such a
        file is refused with ValueError."""
        wanted = options.pop("output_loading_info", False)
        model, info = super().from_pretrained(path, *arguments, output_loading_info=True, **options)
        for kind in ("missing", "unexpected"):
            names = list(info.get(f"{kind}_keys", ()))
            if names:
                raise ValueError(
                    f"{path}: {len(names)} tensors are {kind}, such as {names[0]}; the weights are "
                    "of another model than config.json says"
                )
        return (model, info) if wanted else model

    @classmethod
    def from_config(cls, config: Any = None, *arguments: Any, **options: Any) -> Any:
        """As in diffusers, for a saved configuration; one that does not say `affine` is older than
        its default of false, when only "layernorm" had it."""
        norm, given = config.get("norm", "layernorm"), config.get("norm_options") or {}
        if norm != "layernorm" and "affine" in _options_of(norm) and "affine" not in given:
            config = {**config, "norm_options": {**given, "affine": True}}
        return super().from_config(config, *arguments, **options)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        class_labels: Tensor,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """Noisy input [B, C, H, W], timestep [B] (or one for all) and class_labels [B] int64 to
        `sample` [B, C or 2C, H, W]; a tuple without `return_dict`."""
        x = self.x_embedder(hidden_states) + self.pos_embed  # [B, L, D]
        timestep = timestep.reshape(-1).expand(len(x))
        condition = self.t_embedder(timestep) + self.y_embedder(class_labels)  # [B, D]
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                x = checkpoint(block, x, condition, use_reentrant=False)
            else:
                x = block(x, condition)
        output = unpatchify(self.final_layer(x, condition), self.config.patch_size)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def _initialize(self, zero_init: ZeroInit) -> None:
        """Initial values as published."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.data.flatten(1))
        if self.x_embedder.proj.bias is not None:
            nn.init.zeros_(self.x_embedder.proj.bias)
        for embedding in (self.y_embedder.embedding_table, *self.t_embedder.mlp[::2]):
            nn.init.normal_(embedding.weight, std=0.02)
        kinds = {True: (DiTBlock, FinalLayer), "blocks": (DiTBlock,), False: ()}[zero_init]
        for module in self.modules():
            if isinstance(module, kinds):
                nn.init.zeros_(module.adaLN_modulation[1].weight)  # type: ignore[arg-type]
        if zero_init is True:
            nn.init.zeros_(self.final_layer.linear.weight)


def named_dit(name: str, **options: Any) -> DiT:
    """A published size by name, such as "dit_b_4"; `options` that are not None replace its own."""
    given = {key: value for key, value in options.items() if value is not None}
    return DiT(**{**dit_size(name), **given})


def differs_by_affine(model: DiT, names: Collection[str]) -> bool:
    """Whether tensors called `names` are those of `model` and, besides, of affine norms.

    So are those of runs from before `affine` was false by default for all norms.
    """
    norms = {name for name, module in model.named_modules() if isinstance(module, Norm)}
    unknown = set(names) - model.state_dict().keys()
    return bool(unknown) and all(name.rpartition(".")[0] in norms for name in unknown)


def create_dit(config: Config, num_classes: int) -> DiT:
    """The model of `config`.

    Raises ValueError, naming the key, for an unknown name, sizes that do not go together, or norm
    options that do not fit.
    """
    model = config.model
    if model.name not in DIT_NAMES:
        raise ValueError(
            f"model.name = {model.name!r}: task dit has none; {nearest(model.name, DIT_NAMES)}"
        )
    sizes = {key: getattr(model, key) or size for key, size in dit_size(model.name).items()}
    width = sizes["embed_dim"]
    check_patches(config.data.img_size, sizes["patch_size"])
    check_heads(width, sizes["num_heads"])
    if width % 4:
        raise ValueError(
            f"model.embed_dim = {width}: position embeddings of a DiT need a multiple of 4; "
            f"nearest: {width // 4 * 4 or 4} or {width // 4 * 4 + 4}"
        )
    try:
        return DiT(
            sample_size=config.data.img_size,
            in_channels=config.data.in_chans,
            num_classes=num_classes,
            learn_sigma=config.dit.learn_sigma,
            norm=config.norm.name,
            norm_options=dict(config.norm.options),
            zero_init=config.dit.zero_init,
            **sizes,
        )
    except ValueError as error:
        raise ValueError(f"norm.options = {config.norm.options}: {error}") from error


def _check_sizes(sample_size: int, patch_size: int, embed_dim: int, num_heads: int) -> None:
    if sample_size % patch_size:
        raise ValueError(f"sample_size {sample_size} is not a multiple of patch_size {patch_size}")
    if embed_dim % num_heads or embed_dim % 4:
        raise ValueError(f"embed_dim {embed_dim}: must divide by 4 and num_heads {num_heads}")
