"""New norms fitted to the outputs of the old ones."""

from __future__ import annotations

import math
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from vision.norms import Norm, calibrate, convert_norms, register_norm

DIM = 8


def tokens(seed: int = 0, spread: float = 0.5) -> Tensor:
    """`[40, 5, DIM]` float64: of various sizes, with a mean per channel."""
    generator = torch.Generator().manual_seed(seed)
    x, size, mean = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((40, 5, DIM), (40, 5, 1), (DIM,))
    )
    return (x + 0.5 * mean) * (spread * size).exp()


def learned(seed: int = 0) -> nn.LayerNorm:
    norm = nn.LayerNorm(DIM, eps=1e-6, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        norm.weight.add_(0.5 * torch.randn(DIM, generator=generator))
        norm.bias.add_(0.5 * torch.randn(DIM, generator=generator))
    return norm


def error(y: Tensor, expected: Tensor) -> float:
    return float((y - expected).detach().norm() / expected.detach().norm())


def over_rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("name", ["rmsnorm", "seednorm"])
def test_a_scale_alone_is_that_of_torch_lstsq(name):
    old, x = learned(), tokens()
    model = nn.Sequential(old)
    convert_norms(model, name)
    calibrate(model, x.split(16))  # batches of 16, 16 and 8
    core, y = over_rms(x).flatten(0, 1), old(x).flatten(0, 1)
    scale = getattr(model[0], model[0].scale_name)
    for channel in range(DIM):
        expected = torch.linalg.lstsq(core[:, channel, None], y[:, channel, None]).solution
        assert scale[channel].item() == pytest.approx(expected.item(), rel=1e-9)


def test_scale_and_shift_are_those_of_torch_lstsq():
    old, x = learned(), tokens()
    model = nn.Sequential(old)
    convert_norms(model, "batchnorm", eps=1e-5)
    calibrate(model, [x[:7], x[7:]])
    rows, y = x.flatten(0, 1), old(x).flatten(0, 1)
    core = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()
    for channel in range(DIM):
        both = torch.stack([core[:, channel], torch.ones(len(core))], dim=1)
        w, b = torch.linalg.lstsq(both, y[:, channel, None]).solution.flatten().tolist()
        assert model[0].weight[channel].item() == pytest.approx(w, rel=1e-6)
        assert model[0].bias[channel].item() == pytest.approx(b, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.5])
@pytest.mark.parametrize(
    ("name", "squash"),
    [
        ("dyt", torch.tanh),
        ("derf", torch.erf),
        ("isru", lambda z: z / (z * z + 1).sqrt()),
        ("dyisru", lambda z: z / (z * z + 1).sqrt()),
    ],
)
def test_the_inner_scalar_is_nearly_the_best_that_brute_force_finds(name, squash, spread):
    old, x = learned(), tokens(spread=spread)
    model = nn.Sequential(old)
    convert_norms(model, name)
    (layer,) = calibrate(model, [x]).layers
    y = old(x).flatten(0, 1)

    def least(slope: float) -> float:
        core = squash(slope * x.flatten(0, 1))
        both = torch.stack([core, torch.ones_like(core)], dim=-1).transpose(0, 1)  # [D, N, 2]
        line = torch.linalg.lstsq(both, y.T.unsqueeze(-1)).solution
        return error((both @ line).squeeze(-1).T, y)

    rms = float(x.square().mean().sqrt())
    best = min(least(factor / rms) for factor in torch.logspace(-1.5, 1.5, 200).tolist())
    assert layer.after <= 1.03 * best + 0.01
    assert layer.after < layer.before


@pytest.mark.parametrize("name", ["seednorm", "dyt", "derf", "groupnorm", "repbn", "scalenorm"])
def test_errors_reported_are_the_true_ones_at_the_inputs_of_the_old_model(name):
    x = tokens()
    old = nn.Sequential(learned(0), nn.Linear(DIM, DIM, dtype=torch.float64), learned(1)).eval()
    inputs = [x, old[:2](x)]
    expected = [old[0](inputs[0]), old[2](inputs[1])]
    model = nn.Sequential(*old).train()
    options = {"num_groups": 2} if name == "groupnorm" else {}
    convert_norms(model, name, **options)
    model.eval()
    before = [error(model[i](v), y) for i, v, y in zip((0, 2), inputs, expected, strict=True)]
    model.train()
    result = calibrate(model, x.split(9))
    assert model.training and not model[0]._forward_hooks
    model.eval()
    after = [error(model[i](v), y) for i, v, y in zip((0, 2), inputs, expected, strict=True)]
    assert [layer.before for layer in result.layers] == pytest.approx(before, rel=1e-6)
    assert [layer.after for layer in result.layers] == pytest.approx(after, rel=1e-6)
    assert all(b > a for b, a in zip(before, after, strict=True))


def test_the_report_is_a_table_with_a_summary():
    model = nn.ModuleDict({"used": learned(), "idle": learned()})
    model.forward = model["used"].forward
    convert_norms(model, "dyt")
    model.forward = lambda x: model["used"](x)
    result = calibrate(model, [tokens()])
    lines = str(result).splitlines()
    assert lines[0].split() == ["norm", "before", "after"]
    assert lines[1].split() == [
        "used", f"{result.layers[0].before:.4f}", f"{result.layers[0].after:.4f}",
    ]  # fmt: skip
    assert lines[2].endswith("not reached by the batches")
    assert math.isnan(result.layers[1].before)
    assert lines[-1].startswith("1 of 2 norms fitted, mean relative error ")
    assert lines[-1].endswith("after; 1 left as they were: not reached by the batches")


def test_a_norm_that_cannot_be_fitted_keeps_what_it_took_over():
    model = nn.Sequential(learned())
    convert_norms(model, "powernorm")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    result = calibrate(model, [tokens()])
    assert "0 of 1 norms fitted" in result.summary
    assert "1 left as they were: this norm cannot be fitted" in result.summary
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_fit_that_would_be_worse_is_taken_back(own_registry):
    @register_norm("stubborn")
    class Stubborn(Norm):
        """Not linear in its weight, so the fit is wrong."""

        def __init__(self, dim: int, **options: Any) -> None:
            super().__init__(dim, **options)
            self.weight = nn.Parameter(torch.ones(dim))

        def normalize(self, x: Tensor) -> Tensor:
            return over_rms(x) * self.weight.pow(9)

    model = nn.Sequential(nn.LayerNorm(DIM, dtype=torch.float64))
    convert_norms(model, "stubborn")
    with torch.no_grad():
        model[0].weight.fill_(0.999)
    (layer,) = calibrate(model, [tokens()]).layers
    assert (layer.after, layer.kept) == (layer.before, "no better fit found")
    assert model[0].weight.tolist() == [pytest.approx(0.999)] * DIM


def test_channels_first_norms_of_a_convnext_are_fitted():
    model = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
    convert_norms(model, "dyt")
    result = calibrate(model, [torch.randn(4, 3, 64, 64)])
    assert len(result.layers) == 9
    assert all(layer.kept is None and layer.after < layer.before for layer in result.layers)


def test_batches_may_be_arguments_by_place_or_by_name():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = learned()

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.norm(a + b)

    x, found = tokens(), []
    for batch in ((x, x), {"a": x, "b": x}):
        model = Two()
        convert_norms(model, "dyt")
        found.append(calibrate(model, iter([batch])).layers)
    assert found[0] == found[1]


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(ValueError, match="convert_norms put no norm in this Sequential"):
        calibrate(nn.Sequential(learned()), [tokens()])
    model = nn.Sequential(learned())
    convert_norms(model, "dyt")
    with pytest.raises(ValueError, match="no batches"):
        calibrate(model, [])


def test_compiled_models_are_run_without_their_compiled_code():
    model = nn.Sequential(learned())
    convert_norms(model, "dyt")
    model.compile(backend=lambda *_: pytest.fail("compiled"))
    assert calibrate(model, [tokens()]).layers[0].kept is None
