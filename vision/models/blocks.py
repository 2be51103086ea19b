"""Transformer blocks by the placement of their norms and the form of their residual.

They go into timm's VisionTransformer as `block_fn` and keep its names (norm1, attn, drop_path1,
norm2, mlp, ...), so that whatever finds a layer by its name works with all of them. Below, f is
attention or MLP (then come LayerScale and drop path), and N is a norm:

    pre       x + f(N(x))        timm's Block, https://arxiv.org/abs/2010.11929
    res_post  x + N(f(x))        timm's ResPostBlock, https://arxiv.org/abs/2111.09883
    post      N(x + f(x))        https://arxiv.org/abs/1706.03762
    peri      x + N'(f(N(x)))    https://arxiv.org/abs/2502.02732
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block, ResPostBlock
from torch import Tensor, nn

_BRANCHES = 2  # of a block: attention and MLP


class PostBlock(ResPostBlock):
    """Norms of the sum: N(x + f(x)) (Vaswani et al., "Attention Is All You Need")."""

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Tokens [B, L, D] to tokens [B, L, D]."""
        f = self.attn(x, attn_mask=attn_mask, is_causal=is_causal)
        x = self.norm1(x + self.drop_path1(f))
        return self.norm2(x + self.drop_path2(self.mlp(x)))


class PeriBlock(Block):
    """Norms before and behind each branch: x + N'(f(N(x))) (Kim et al., "Peri-LN: Revisiting
    Normalization Layer in the Transformer Architecture"); N' is `post_norm1` and `post_norm2`.

    The norm of the embedding that the paper leaves open is not there.
    """

    def __init__(
        self,
        dim: int,
        *,
        norm_layer: Callable[..., nn.Module] = LayerNorm,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dim, norm_layer=norm_layer, device=device, dtype=dtype, **options)  # type: ignore[arg-type]
        self.post_norm1 = norm_layer(dim, device=device, dtype=dtype)
        self.post_norm2 = norm_layer(dim, device=device, dtype=dtype)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Tokens [B, L, D] to tokens [B, L, D]."""
        f = self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)
        x = x + self.drop_path1(self.ls1(self.post_norm1(f)))
        return x + self.drop_path2(self.ls2(self.post_norm2(self.mlp(self.norm2(x)))))


class Shift(nn.Module):
    """Adds one learned number, from 0."""

    def __init__(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x + self.bias.to(x.dtype)


class Multiplier(nn.Module):
    """Multiplies by one learned number, from 1, and by the constant `factor`."""

    def __init__(
        self,
        factor: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(torch.ones(1, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x * (self.factor * self.weight).to(x.dtype)


class FixupBlock(Block):
    """No norms: scalars and start values (Zhang et al., "Fixup Initialization: Residual Learning
    Without Normalization", https://arxiv.org/abs/1901.09321), as in the authors' transformer.

    A scalar is added before attention (in place of `norm1`), before the MLP (`norm2`), before its
    activation and before fc2 (`mlp.norm`); a multiplier follows each branch (`ls1`, `ls2`). Linear
    layers have no biases. With L branches in the model, proj and fc2 start at 0, qkv at Xavier's
    values times L^(-1/6), as in a branch of four layers, and fc1 times L^(-1/2), of two. Ours: the
    model keeps its final norm, where theirs has a scalar and a multiplier.
    """

    attn: Any  # with these four the block does what timm's types do not say
    mlp: Any
    ls1: Any
    ls2: Any

    def __init__(
        self,
        dim: int,
        *,
        num_blocks: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        shift = partial(Shift, device, dtype)
        fixed: dict[str, Any] = {
            "qkv_bias": False,
            "proj_bias": False,
            "qk_norm": False,
            "scale_attn_norm": False,
            "scale_mlp_norm": True,
            "norm_layer": lambda dim, **where: shift(),
        }
        super().__init__(dim, device=device, dtype=dtype, **{**options, **fixed})
        self.branches = _BRANCHES * num_blocks
        self.mlp.act = nn.Sequential(shift(), self.mlp.act)
        self.ls1 = Multiplier(device=device, dtype=dtype)
        self.ls2 = Multiplier(device=device, dtype=dtype)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start values; timm calls it after it has filled the linear layers."""
        for layer, exponent in ((self.attn.qkv, -1 / 6), (self.mlp.fc1, -1 / 2)):
            nn.init.xavier_uniform_(layer.weight, gain=self.branches**exponent)
        nn.init.zeros_(self.attn.proj.weight)
        nn.init.zeros_(self.mlp.fc2.weight)


class RescaleBlock(Block):
    """No norms: sqrt((k-1)/k) x + m L^(-1/2) f(x) (Shao et al., "Is normalization indispensable for
    training deep neural networks?", NeurIPS 2020), read in the authors' ResNet.

    L is the number of branches in the model and k counts them from L on; m, the multiplier, starts
    at 1 (`ls1`, `ls2`). Weights start from a normal distribution that keeps the variance, times
    (L/k)^(1/2n) in a branch of n layers, so that m L^(-1/2) f(x) has 1/k of x's variance, and the
    sum all of it. Ours: attention counts as two layers, qkv and proj; only fc2 makes up for an
    activation before it; and the biases are timm's, behind the layers and from 0, where those of
    the ResNet are in front and start from minus the mean of the first batches.
    """

    attn: Any  # with these four the block does what timm's types do not say
    mlp: Any
    ls1: Any
    ls2: Any

    def __init__(
        self,
        dim: int,
        *,
        num_blocks: int,
        depth: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        fixed: dict[str, Any] = {
            "qk_norm": False,
            "scale_attn_norm": False,
            "scale_mlp_norm": False,
            "norm_layer": nn.Identity,
        }
        super().__init__(dim, depth=depth, device=device, dtype=dtype, **{**options, **fixed})
        self.branches = _BRANCHES * num_blocks
        self.position = self.branches + _BRANCHES * depth  # k of the attention
        self.ls1 = Multiplier(self.branches**-0.5, device, dtype)
        self.ls2 = Multiplier(self.branches**-0.5, device, dtype)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start values; timm calls it after it has filled the linear layers."""
        branches = ((self.attn.qkv, self.attn.proj), (self.mlp.fc1, self.mlp.fc2))
        for k, layers in enumerate(branches, self.position):
            scale = (self.branches / k) ** (1 / (2 * len(layers)))
            for layer in layers:
                gain = math.sqrt(2) if layer is self.mlp.fc2 else 1.0
                nn.init.normal_(layer.weight, std=scale * gain * layer.in_features**-0.5)

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        """Tokens [B, L, D] to tokens [B, L, D]."""
        first, second = (math.sqrt((k - 1) / k) for k in (self.position, self.position + 1))
        f = self.attn(x, attn_mask=attn_mask, is_causal=is_causal)
        x = first * x + self.drop_path1(self.ls1(f))
        return second * x + self.drop_path2(self.ls2(self.mlp(x)))


_PLACED: dict[str, type[nn.Module]] = {
    "pre": Block,
    "res_post": ResPostBlock,
    "post": PostBlock,
    "peri": PeriBlock,
}
_WITHOUT_NORMS: dict[str, type[nn.Module]] = {"fixup": FixupBlock, "rescale": RescaleBlock}


def block_class(
    norm_placement: str | None, residual: str, num_blocks: int
) -> Callable[..., nn.Module] | None:
    """timm's `block_fn` for a model of `num_blocks` blocks; None: what the model's name says."""
    if residual in _WITHOUT_NORMS:
        return partial(_WITHOUT_NORMS[residual], num_blocks=num_blocks)
    return None if norm_placement is None else _PLACED[norm_placement]


def describe_blocks(norm_placement: str | None, residual: str) -> str | None:
    """What is said of blocks that are not as the model's name says; None of those that are."""
    if residual in _WITHOUT_NORMS:
        return f"residual {residual}: no norms in the blocks, norm.name is that of the others"
    return None if norm_placement is None else f"norms placed {norm_placement}"


def reset_blocks(blocks: nn.Module) -> None:
    """Gives the weights of blocks without norms their start values again."""
    for block in blocks.children():
        if isinstance(block, (FixupBlock, RescaleBlock)):
            block.init_weights()
