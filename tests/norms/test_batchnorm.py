"""BatchNorm against torch's, and where torch refuses."""

import pytest
import torch
from torch import nn

from vision.norms import create_norm

DIM = 6


def test_steps_and_evaluation_are_those_of_torch():
    ours, theirs = create_norm("batchnorm", DIM), nn.BatchNorm1d(DIM)
    generator = torch.Generator().manual_seed(0)
    for step in range(5):
        x = step + torch.randn(3, 4, DIM, generator=generator)
        torch.testing.assert_close(ours(x).transpose(1, 2), theirs(x.transpose(1, 2)))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x).transpose(1, 2), theirs(x.transpose(1, 2)))
    nn.BatchNorm1d(DIM).load_state_dict(ours.state_dict())  # strict


def test_a_single_value_per_channel_gives_the_bias_where_torch_refuses():
    norm, x = create_norm("batchnorm", DIM), torch.randn(1, DIM, requires_grad=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(DIM)(x)
    y = norm(x)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(1, DIM)) and torch.equal(x.grad, torch.zeros(1, DIM))
    assert torch.equal(norm.running_var, torch.full((DIM,), 0.9))


@pytest.mark.parametrize("momentum", [0, 1.5, "0.1", True])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(
        ValueError, match="momentum must be a number above 0 and at most 1|: expected a number"
    ):
        create_norm("batchnorm", DIM, momentum=momentum)


def test_running_averages_stay_float32_in_half_precision():
    norm = create_norm("batchnorm", DIM, dtype=torch.bfloat16).to(torch.bfloat16)
    assert norm.weight.dtype == torch.bfloat16
    assert norm.running_mean.dtype == norm.running_var.dtype == torch.float32
    assert norm.to(torch.float64).running_var.dtype == torch.float64
