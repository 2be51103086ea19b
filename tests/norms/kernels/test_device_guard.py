"""A kernel computes where its input is, whatever the current device."""

import pytest
import torch

from vision.norms import create_norm


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_device_computes_while_the_first_is_current() -> None:
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    outputs = []
    for index in (0, 1):
        norm = create_norm("seednorm", 64, num_heads=4, backend="triton").to(f"cuda:{index}")
        inputs = x.to(f"cuda:{index}").requires_grad_()
        with torch.cuda.device(0):
            y = norm(inputs)
            y.square().sum().backward()
        assert torch.cuda.current_device() == 0 and y.device.index == index
        outputs.append((y.cpu(), inputs.grad.cpu(), norm.alpha.grad.cpu()))
    for first, second in zip(*outputs, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-6)
