"""The device that a tool computes on."""

import pytest
import torch

from vision.environment import choose_device

ACCELERATOR = torch.accelerator.current_accelerator(check_available=True)


def test_a_tool_computes_where_it_is_told_else_on_the_accelerator(monkeypatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device() == (ACCELERATOR or torch.device("cpu"))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert choose_device() == torch.device("cpu")


def test_each_process_of_torchrun_takes_its_own_accelerator(monkeypatch) -> None:
    chosen = []
    found = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: found)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_device() == choose_device("cuda") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 1)] * 2
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(
        ValueError, match=r"device 'cuda:2': this machine has cpu \(1\), cuda \(2\)"
    ):
        choose_device()


def test_a_device_that_is_not_there_is_named() -> None:
    for name in ("nonsense", "cuda:99"):
        with pytest.raises(ValueError, match=f"device '{name}': this machine has cpu"):
            choose_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_device_that_was_named_becomes_the_current_one() -> None:
    before = torch.cuda.current_device()
    choose_device("cuda:1")
    try:
        assert torch.empty(1, device="cuda").device.index == 1
    finally:
        torch.cuda.set_device(before)


@pytest.mark.gpu
def test_float32_products_take_tf32_in_every_tool() -> None:
    choose_device("cuda")
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.cudnn.allow_tf32
