"""Placements of norms and residual forms: formulas, start values, training."""

import math
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from vision.config import Config
from vision.models.classifier import create_classifier
from vision.models.mae import create_mae
from vision.tasks.optimizer import parameter_groups

PLACEMENTS = ("pre", "res_post", "post", "peri")
RESIDUALS = ("fixup", "rescale")
SETTINGS = [{"norm_placement": p} for p in PLACEMENTS] + [{"residual": r} for r in RESIDUALS]
WIDTH, HEADS = 48, 3


@pytest.fixture
def small_vit(vit_config: Callable[..., Config]) -> Callable[..., nn.Module]:
    """A classifier of such images."""

    def make(depth: int = 2, **model: object) -> nn.Module:
        torch.manual_seed(0)
        return create_classifier(vit_config(depth=depth, **model), 10)[0]

    return make


# the blocks in plain arithmetic; p has the parameters of one block


def norm(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    std = ((x - mean).square().mean(-1, keepdim=True) + 1e-6) ** 0.5
    return (x - mean) / std * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, p[f"{name}.weight"]) + p.get(f"{name}.bias", 0)


def attention(p: dict[str, Tensor], x: Tensor) -> Tensor:
    parts = linear(p, "attn.qkv", x).unflatten(-1, (3, HEADS, WIDTH // HEADS))
    q, k, v = parts.unbind(2)  # [B, L, H, d]
    if "attn.q_norm.weight" in p:
        q, k = norm(p, "attn.q_norm", q), norm(p, "attn.k_norm", k)
    logits = torch.einsum("blhd,bmhd->bhlm", q, k) / (WIDTH // HEADS) ** 0.5
    mixed = torch.einsum("bhlm,bmhd->blhd", logits.softmax(-1), v)
    return linear(p, "attn.proj", mixed.flatten(-2))


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def mlp(p: dict[str, Tensor], x: Tensor) -> Tensor:
    hidden = gelu(linear(p, "mlp.fc1", x))
    hidden = norm(p, "mlp.norm", hidden) if "mlp.norm.weight" in p else hidden
    return linear(p, "mlp.fc2", hidden)


def pre(p: dict[str, Tensor], x: Tensor, i: int) -> Tensor:
    x = x + attention(p, norm(p, "norm1", x))
    return x + mlp(p, norm(p, "norm2", x))


def res_post(p: dict[str, Tensor], x: Tensor, i: int) -> Tensor:
    x = x + norm(p, "norm1", attention(p, x))
    return x + norm(p, "norm2", mlp(p, x))


def post(p: dict[str, Tensor], x: Tensor, i: int) -> Tensor:
    x = norm(p, "norm1", x + attention(p, x))
    return norm(p, "norm2", x + mlp(p, x))


def peri(p: dict[str, Tensor], x: Tensor, i: int) -> Tensor:
    x = x + norm(p, "post_norm1", attention(p, norm(p, "norm1", x)))
    return x + norm(p, "post_norm2", mlp(p, norm(p, "norm2", x)))


def fixup(p: dict[str, Tensor], x: Tensor, i: int) -> Tensor:
    x = x + p["ls1.weight"] * attention(p, x + p["norm1.bias"])
    hidden = gelu(linear(p, "mlp.fc1", x + p["norm2.bias"]) + p["mlp.act.0.bias"])
    return x + p["ls2.weight"] * linear(p, "mlp.fc2", hidden + p["mlp.norm.bias"])


def rescale(p: dict[str, Tensor], x: Tensor, i: int) -> Tensor:
    branches = 2 * 2
    k = branches + 2 * i
    x = ((k - 1) / k) ** 0.5 * x + p["ls1.weight"] / branches**0.5 * attention(p, x)
    return (k / (k + 1)) ** 0.5 * x + p["ls2.weight"] / branches**0.5 * mlp(p, x)


FORMULAS: dict[str, Callable[[dict[str, Tensor], Tensor, int], Tensor]] = {
    f.__name__: f for f in (pre, res_post, post, peri, fixup, rescale)
}
BOTH = {"qk_norm": True, "mlp_norm": True}


@pytest.mark.parametrize(
    "settings",
    [*SETTINGS, *({"norm_placement": p, **BOTH} for p in PLACEMENTS), {}, BOTH],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_blocks_are_their_formulas(small_vit, settings: dict[str, str]) -> None:
    model = small_vit(**settings).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * noise)
    x = torch.randn(2, 5, WIDTH, generator=generator, dtype=torch.float64)
    name = settings.get("norm_placement", settings.get("residual", "pre"))
    expected = x
    for i, block in enumerate(model.blocks):
        names = dict(block.named_parameters())
        expected = FORMULAS[name](names, expected, i)
        used = torch.autograd.grad(expected.sum(), list(names.values()), retain_graph=True)
        assert all(gradient is not None for gradient in used)  # the formula has no other parts
    torch.testing.assert_close(model.blocks(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [2, 8])
def test_fixup_starts_as_the_identity_with_scaled_layers(small_vit, depth: int) -> None:
    model = small_vit(depth, residual="fixup")
    x = torch.randn(2, 5, WIDTH)
    assert torch.equal(model.blocks(x), x)
    assert not model(torch.randn(2, 1, 8, 8)).any()
    branches = 2 * depth
    for block in model.blocks:
        for weight, scale in (
            (block.attn.qkv.weight, branches ** (-1 / 6)),
            (block.mlp.fc1.weight, branches ** (-1 / 2)),
        ):
            bound = scale * (6 / sum(weight.shape)) ** 0.5  # Xavier's, uniform
            assert weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize("depth", [2, 12, 48])
def test_rescale_keeps_the_variance_at_any_depth(small_vit, depth: int) -> None:
    model = small_vit(depth, residual="rescale")
    x = torch.randn(8, 17, WIDTH)
    # attention averages tokens and GELU halves small values: less than 1, but not less with depth
    assert 0.5 < model.blocks(x).var() / x.var() < 1
    for i, block in enumerate(model.blocks):
        for k, layers in (
            (2 * (depth + i), (block.attn.qkv, block.attn.proj)),
            (2 * (depth + i) + 1, (block.mlp.fc1, block.mlp.fc2)),
        ):
            # the branch has 1/k of the variance of x, if its layers alone would keep it
            added = [layer.weight.var().item() * layer.in_features for layer in layers]
            added[1] /= 2 if layers[1] is block.mlp.fc2 else 1
            assert math.prod(added) * block.ls1.factor**2 == pytest.approx(1 / k, rel=0.15)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: next(iter(s.values())))
def test_a_small_vit_learns_digits(small_vit, settings: dict[str, str]) -> None:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    targets = torch.tensor(digits.target)
    model = small_vit(global_pool="avg", **settings)
    epochs, lr = 14, 4e-3
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05, None), lr=lr)
    steps = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * 25)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for index in torch.randperm(1600, generator=generator).split(64):
            loss = nn.functional.cross_entropy(model(images[index]), targets[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.step()
    model.eval()
    with torch.no_grad():
        correct = model(images[1600:]).argmax(-1) == targets[1600:]
    assert correct.float().mean() > 0.6


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: next(iter(s.values())))
def test_an_autoencoder_keeps_the_start_values_and_trains(
    vit_config, settings: dict[str, str]
) -> None:
    torch.manual_seed(0)
    model, _ = create_mae(vit_config("mae", **settings))
    x = torch.randn(2, 5, WIDTH)
    if settings == {"residual": "fixup"}:
        assert torch.equal(model.encoder.blocks(x), x)
    if settings == {"residual": "rescale"}:
        fc2 = model.encoder.blocks[1].mlp.fc2  # k is 7, of 4 branches
        assert fc2.weight.std().item() == pytest.approx(
            (4 / 7) ** 0.25 * (2 / fc2.in_features) ** 0.5, rel=0.05
        )
    assert type(model.decoder_blocks[0]).__name__ == "Block"
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    images = torch.randn(16, 1, 8, 8)
    losses = []
    for _ in range(3):
        loss, _, _ = model(images, noise=torch.rand(16, 16, generator=torch.Generator()))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[2] < losses[0]
    assert all(p.grad is not None for p in model.encoder.blocks.parameters())


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: next(iter(s.values())))
def test_layers_decay_by_their_block_and_scalars_do_not(
    small_vit, settings: dict[str, str]
) -> None:
    model = small_vit(**settings)
    groups = parameter_groups(model, 0.05, layer_decay=0.5)
    scales = {id(p): group for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = scales[id(parameter)]
        if name.startswith("blocks."):
            assert group["lr_scale"] == 0.5 ** (2 - int(name.split(".")[1])), name
        assert (group["weight_decay"] == 0) == (
            parameter.ndim == 1 or name in ("pos_embed", "cls_token")
        ), name
