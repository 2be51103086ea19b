"""The schedule of RepBN."""

import pytest
import torch
from torch import nn

from vision.norms import convert_norms, create_norm

X = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))


def test_training_goes_from_layernorm_to_what_evaluation_does():
    norm = create_norm("repbn", 6)
    assert torch.allclose(norm(X), create_norm("layernorm", 6, eps=1e-5)(X), atol=1e-6)
    for progress, mix in [(0.0, 1.0), (0.2, 0.75), (0.8, 0.0), (1.0, 0.0)]:
        norm.follow(progress)
        assert float(norm.diagnose(X)["lambda"]) == pytest.approx(mix)
    assert torch.allclose(norm(X), create_norm("batchnorm", 6)(X) + X, atol=1e-6)


def test_at_the_start_a_layernorm_that_it_replaces_goes_on_as_it_was():
    model = nn.Sequential(nn.LayerNorm(6, eps=1e-5))
    nn.init.normal_(model[0].weight), nn.init.normal_(model[0].bias)
    before = model(X)
    convert_norms(model, "repbn")
    torch.testing.assert_close(model.train()(X), before)
    model[0].follow(1.0)  # and what evaluation uses has learned it too
    plain = create_norm("repbn", 6)
    plain.follow(1.0)
    torch.testing.assert_close(model(X) - X, (plain(X) - X) * model[0].weight + model[0].bias)


def test_all_parameters_have_a_gradient_at_the_end():
    norm = create_norm("repbn", 6)
    norm.follow(1.0)
    norm(X).sum().backward()
    assert all(p.grad is not None for p in norm.parameters())
    assert not norm.layernorm_weight.grad.any() and norm.eta.grad.any()


@pytest.mark.parametrize("end", [0, 1.1, "0.8", True])
def test_an_end_outside_the_run_is_refused(end):
    with pytest.raises(
        ValueError, match="end must be a number above 0 and at most 1|: expected a number"
    ):
        create_norm("repbn", 6, end=end)
