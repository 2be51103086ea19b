"""The first module or tensor that is not finite is named."""

import torch
from torch import nn

from vision.tasks.finite import nonfinite_module, nonfinite_tensor


def test_the_first_broken_module_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU())
    x = torch.ones(1, 2)
    assert nonfinite_module(model, lambda: model(x)) is None
    nn.init.constant_(model[1].bias, float("inf"))
    assert nonfinite_module(model, lambda: model(x)) == "1 (Linear)"
    assert not any(module._forward_hooks for module in model.modules())


def test_the_forward_pass_runs_to_its_end_where_other_ranks_may_wait() -> None:
    calls = []
    model = nn.Sequential(nn.Linear(1, 1), nn.ReLU())
    model[1].register_forward_hook(lambda *_: calls.append("last"))
    nn.init.constant_(model[0].bias, float("nan"))
    assert nonfinite_module(model, lambda: model(torch.ones(1, 1))) == "0 (Linear)"
    assert calls == ["last"]


def test_the_first_broken_tensor_is_named_and_missing_ones_are_skipped() -> None:
    good, bad = torch.ones(3), torch.tensor([0.0, float("nan")])
    assert nonfinite_tensor([("a", good), ("b", None)]) is None
    assert nonfinite_tensor([]) is None
    assert nonfinite_tensor([("a", good), ("b", None), ("c", bad), ("d", bad)]) == "c"
