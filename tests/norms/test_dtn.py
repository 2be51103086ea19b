"""Dynamic token normalization: its grid, tokens without a place, masked images."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vision.norms import convert_norms, create_norm
from vision.norms.dtn import DTN
from vision.norms.tokens import TokenLayout

DIM, GRID, PREFIX = 12, (3, 4), 2
FORMULA = runpy.run_path(str(Path(__file__).parent / "formulas" / "dtn.py"))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(heads: int = 4, layout: TokenLayout | None = None) -> DTN:
    norm = create_norm("dtn", DIM, num_heads=heads, dtype=torch.float64)
    with torch.no_grad():
        for number, parameter in enumerate(norm.parameters()):
            parameter.add_(0.3 * randn(*parameter.shape, seed=number))
    norm.layout = layout or TokenLayout(GRID, PREFIX)
    return norm


def expected(norm: DTN, x: Tensor, places: list[tuple[int, int]]) -> Tensor:
    p, o = dict(norm.named_parameters()), {"num_heads": norm.num_heads}
    return p["weight"] * FORMULA["normalized"](x, places, p, o) + p["bias"]


def place(number: int) -> tuple[int, int]:
    return divmod(number, GRID[1])


def test_tokens_of_a_grid_behind_two_without_a_place_match_the_formula():
    norm, x = make(), randn(2, PREFIX + 12, DIM)
    leaves = [x.requires_grad_(), *norm.parameters()]
    results = []
    for y in (norm(x), expected(norm, x, [place(i) for i in range(12)])):
        results.append((y, *torch.autograd.grad(y, leaves, randn(*y.shape, seed=9))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_kept_tokens_of_masked_images_match_the_formula_of_their_places():
    norm, x = make(), randn(2, PREFIX + 4, DIM)
    kept = torch.tensor([[7, 0, 2, 11], [1, 10, 4, 3]])
    with norm.layout.keeping(kept):
        y = norm(x)
    for image, numbers, found in zip(x, kept.tolist(), y, strict=True):
        theirs = expected(norm, image[None], [place(number) for number in numbers])
        torch.testing.assert_close(found, theirs[0], rtol=1e-9, atol=1e-11)


def test_keeping_every_token_in_any_order_changes_nothing():
    norm, x = make(), randn(3, PREFIX + 12, DIM)
    order = torch.stack([torch.randperm(12, generator=torch.manual_seed(i)) for i in range(3)])
    picked = torch.cat([torch.arange(PREFIX).expand(3, -1), PREFIX + order], 1)[..., None]
    with norm.layout.keeping(order):
        shuffled = norm(x.take_along_dim(picked, 1))
    torch.testing.assert_close(shuffled, norm(x).take_along_dim(picked, 1))


def test_it_is_layernorm_where_the_gates_are_1_and_for_pooled_images():
    norm, layernorm = make(), nn.LayerNorm(DIM, eps=1e-5, dtype=torch.float64)
    layernorm.load_state_dict({key: getattr(norm, key) for key in ("weight", "bias")})
    pooled, x = randn(5, DIM), randn(2, PREFIX + 12, DIM)
    torch.testing.assert_close(norm(pooled), layernorm(pooled))
    torch.testing.assert_close(norm(x)[:, :PREFIX], layernorm(x)[:, :PREFIX])
    assert (norm(x) - layernorm(x)).abs().max() > 0.1
    nn.init.constant_(norm.mean_gate, 40.0), nn.init.constant_(norm.var_gate, 40.0)
    torch.testing.assert_close(norm(x), layernorm(x))


def test_it_is_instance_norm_where_the_gates_are_0_and_all_tokens_count_alike():
    norm, x = create_norm("dtn", DIM, dtype=torch.float64), randn(2, 3, 4, DIM)
    nn.init.constant_(norm.mean_gate, -40.0), nn.init.constant_(norm.var_gate, -40.0)
    nn.init.zeros_(norm.places)
    theirs = nn.functional.instance_norm(x.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(norm(x), theirs)


@pytest.mark.parametrize("heads", [1, 3, 4, 12])
def test_heads_start_around_offsets_of_a_small_grid(heads):
    norm = create_norm("dtn", DIM, num_heads=heads, dtype=torch.float64)
    assert torch.equal(norm.places, FORMULA["start"](heads).double())
    assert not norm.mean_gate.any() and not norm.var_gate.any()


def test_maps_are_their_own_grid_whatever_the_layout():
    norm, x = make(), randn(2, 5, 3, DIM)
    tokens = make(layout=TokenLayout((5, 3)))
    torch.testing.assert_close(norm(x), tokens(x.flatten(1, 2)).view_as(x))


@pytest.mark.parametrize("shape", [(2, 12, DIM), (2, 15, DIM), (2, 3, 14, DIM), (2, 2, 3, 4, DIM)])
def test_input_without_known_places_is_refused_with_its_shape(shape):
    with pytest.raises(ValueError, match=rf"{shape[1]}, .*\[B, 14, D\] of a layout"):
        make()(torch.zeros(shape, dtype=torch.float64))


def test_models_without_a_grid_of_tokens_are_refused():
    with pytest.raises(ValueError, match="DTN needs to know where tokens stand, and Sequential"):
        convert_norms(nn.Sequential(nn.LayerNorm(DIM)), "dtn")


def test_gradcheck_with_a_grid_and_kept_places():
    norm, x = make(layout=TokenLayout((1, 3), 1)), randn(2, 3, DIM).requires_grad_()
    with norm.layout.keeping(torch.tensor([[2, 0], [1, 2]])):
        assert torch.autograd.gradcheck(lambda x, *_: norm(x), (x, *norm.parameters()))
