"""What online normalization promises: how samples are cut into batches does not matter."""

import pytest
import torch

from vision.norms import create_norm

DIM = 4


def test_samples_one_by_one_give_what_a_batch_gives():
    generator = torch.Generator().manual_seed(0)
    options = {"forward_decay": 0.8, "backward_decay": 0.7, "dtype": torch.float64}
    whole, single = (create_norm("onlinenorm", DIM, **options) for _ in range(2))
    for _ in range(2):
        x = 1 + 2 * torch.randn(5, 3, DIM, generator=generator, dtype=torch.float64)
        g = torch.randn(5, 3, DIM, generator=generator, dtype=torch.float64)
        leaves = x.clone().requires_grad_(), x.clone().requires_grad_()
        whole(leaves[0]).backward(g)
        for i in range(5):
            single(leaves[1][i : i + 1]).backward(g[i : i + 1])
        torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=0, atol=1e-12)
    for name, buffer in whole.named_buffers():
        assert buffer.abs().min() > 1e-3, name
        torch.testing.assert_close(single.get_buffer(name), buffer, rtol=1e-12, atol=1e-12)


def test_the_output_is_clamped():
    norm = create_norm("onlinenorm", DIM, clamp=2.0)
    y = norm(torch.tensor([[-9.0, -1.0, 1.0, 9.0]]))
    torch.testing.assert_close(y, torch.tensor([[-2.0, -1.0, 1.0, 2.0]]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("clamp", [0, "5", True])
def test_a_clamp_that_is_no_size_is_refused(clamp):
    with pytest.raises(ValueError, match="clamp must be a number above 0|: expected a number"):
        create_norm("onlinenorm", DIM, clamp=clamp)
